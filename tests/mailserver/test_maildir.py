"""Local copies: durable in staging/, then in the Maildir by one rename; all of a message or nothing."""

import errno
import os
import re
import resource
import stat
from dataclasses import replace

import pytest

from mailserver.content import ContentStore
from mailserver.transports import maildir
from panel.database import ids
from tests.support import letters
from tests.support.letters import IDS, address, local

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000


@pytest.fixture
def config(tmp_path):
    made = letters.config(tmp_path)
    maildir.prepare(made)
    return made


def letter(*names: str, **fields) -> maildir.Letter:
    copies = []
    for number, name in enumerate(names, 1):
        mailbox = local(name, number=number).deliveries[0].mailbox
        copies.append(maildir.Copy(IDS.next(), mailbox, name))
    values = {
        "received_at": letters.now(), "reverse_path": "peer@remote.test", "prefix": b"Received: by us\r\n",
        "body": letters.body(), "copies": tuple(copies),
    }
    return maildir.Letter(**(values | fields))


def new(config, mailbox):
    folder = config.maildir(mailbox.opaque_id) / "new"
    return sorted(folder.iterdir()) if folder.exists() else []


def staged_names(config):
    return os.listdir(config.staging)


def test_published_copy_is_the_message_unchanged_but_for_added_headers(config):
    [staged] = maildir.stage(config, letter("office@demo.test"))
    assert new(config, staged.mailbox) == []
    maildir.publish(config, staged)
    [file] = new(config, staged.mailbox)
    assert file.read_bytes() == (
        b"Return-Path: <peer@remote.test>\r\nDelivered-To: office@demo.test\r\nReceived: by us\r\n" + letters.TEXT
    )
    assert staged_names(config) == []


def test_name_says_time_recipient_host_and_size(config):
    one = letter("office@demo.test")
    [staged] = maildir.stage(config, one)
    size = staged.path.stat().st_size
    assert staged.size == size
    recipient = ids.to_text(one.copies[0].recipient_id)
    at = int(one.received_at.timestamp())
    assert staged.path.name == f"{at}.R{recipient}.mx.posthouse.test,S={size},W={size}"
    assert re.fullmatch(r"[^/:]+", staged.path.name)


def test_dovecot_can_read_by_its_group_whatever_the_umask(config):
    before = os.umask(0o077)
    try:
        [staged] = maildir.stage(config, letter("office@demo.test"))
        maildir.publish(config, staged)
    finally:
        os.umask(before)
    [file] = new(config, staged.mailbox)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    for folder in (file.parent, file.parent.parent / "cur", file.parent.parent, file.parent.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) & 0o070 == 0o070


@pytest.mark.parametrize("in_kernel", [True, False])
def test_spilled_body_is_copied_whole(config, monkeypatch, in_kernel):
    if not in_kernel:
        def refused(*args):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refused)
    spill = ContentStore(config).new_spill()
    spill.write(LARGE)
    one, two = maildir.stage(config, letter("a@demo.test", "b@demo.test", body=spill.finish()))
    for staged in (one, two):
        assert staged.path.read_bytes().endswith(b"Received: by us\r\n" + LARGE)
        assert staged.size == staged.path.stat().st_size
    assert b"Delivered-To: b@demo.test\r\n" in two.path.read_bytes()


def test_body_that_lost_bytes_is_not_staged(config):
    spill = ContentStore(config).new_spill()
    spill.write(LARGE)
    body = spill.finish()
    os.truncate(body.path, 100)
    with pytest.raises(OSError, match="as long"):
        maildir.stage(config, letter("a@demo.test", body=body))
    assert staged_names(config) == []


def test_full_disk_leaves_nothing_of_that_message_and_all_of_the_others(config, monkeypatch):
    bad = letter("a@demo.test", "b@demo.test", body=letters.body(b"X-Bad: 1\r\n\r\nno room\r\n"))
    good = letter("c@demo.test")
    whole, written = os.write, []

    def write(descriptor, content):
        if b"X-Bad" in bytes(content):
            written.append(1)
            if len(written) == 2:
                whole(descriptor, bytes(content)[:20])
                raise OSError(errno.ENOSPC, "No space left on device")
        return whole(descriptor, content)

    monkeypatch.setattr(os, "write", write)
    first, second = maildir.stage_all(config, [bad, good])
    assert first.errno in maildir.NO_ROOM
    assert [staged.path.name for staged in second] == staged_names(config)


def test_letter_that_can_not_be_written_fails_alone(config):
    bad, good = maildir.stage_all(config, [letter("a@demo.test", reverse_path="\ud800"), letter("b@demo.test")])
    assert bad.errno == errno.EINVAL
    assert [staged.path.name for staged in good] == staged_names(config)


def test_failed_sync_leaves_nothing(config, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    first, second = maildir.stage_all(config, [letter("a@demo.test"), letter("b@demo.test")])
    assert (first.errno, second.errno) == (errno.EIO, errno.EIO)
    assert staged_names(config) == []


def test_files_are_durable_before_the_folder_and_the_folder_once(config, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    results = maildir.stage_all(config, [letter("a@demo.test", "b@demo.test"), letter("c@demo.test")])
    files = [str(staged.path) for result in results for staged in result]
    assert synced == [*files, str(config.staging)]


def test_no_descriptor_is_left_open(config, monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    maildir.stage(config, letter("a@demo.test", "b@demo.test"))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.EIO, "error")))
    maildir.stage_all(config, [letter("a@demo.test")])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("shape", [[300], [100] * 3, [1, 300, 1]])
def test_many_copies_need_few_descriptors(config, shape):
    """A list of a thousand members is one message: it must not take the sessions' descriptors."""
    every = [letter(*(f"m{number}@demo.test" for number in range(copies))) for copies in shape]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + maildir.OPEN_MOST + 20, hard))
    try:
        results = maildir.stage_all(config, every)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [len(result) for result in results] == shape
    assert len(staged_names(config)) == sum(shape)


def test_second_publication_changes_nothing_wherever_the_person_moved_it(config):
    [staged] = maildir.stage(config, letter("office@demo.test"))
    maildir.publish(config, staged)
    [file] = new(config, staged.mailbox)
    file.rename(file.parent.parent / "cur" / f"{file.name}:2,S")
    maildir.publish(config, staged)
    assert new(config, staged.mailbox) == []
    assert len(os.listdir(file.parent.parent / "cur")) == 1


def test_copy_that_can_not_be_published_stays_staged_and_the_others_go(config):
    one, two = maildir.stage(config, letter("a@demo.test", "b@demo.test"))
    broken = config.maildir(one.mailbox.opaque_id)
    broken.parent.mkdir(parents=True)
    broken.write_text("a file in the Maildir's place")
    first, second = maildir.publish_all(config, [one, two])
    assert isinstance(first, OSError)
    assert second is None
    assert one.path.exists()
    assert len(new(config, two.mailbox)) == 1
    broken.unlink()
    maildir.publish(config, one)
    assert len(new(config, one.mailbox)) == 1


def test_staging_again_after_a_crash_replaces_the_half_written_file(config):
    one = letter("office@demo.test")
    [staged] = maildir.stage(config, one)
    whole = staged.path.read_bytes()
    staged.path.write_bytes(whole[:10])
    [again] = maildir.stage(config, one)
    assert again.path == staged.path
    assert again.path.read_bytes() == whole


def test_copy_of_a_try_is_nobodys_until_it_takes_its_name(config):
    one = letter("office@demo.test")
    first, second = maildir.stage(config, one, apart=True)[0], maildir.stage(config, one, apart=True)[0]
    assert first.path != second.path
    assert maildir.staged_copy(config, first.recipient_id, first.mailbox) is None
    named = maildir.take_name(config, first)
    assert maildir.staged_copy(config, first.recipient_id, first.mailbox) == named
    maildir.unstage([second])
    assert staged_names(config) == [named.path.name] == [maildir.stage(config, one)[0].path.name]


def test_staged_copy_is_found_by_its_recipient(config):
    one, two = maildir.stage(config, letter("a@demo.test", "b@demo.test"))
    (config.staging / "not-ours").touch()
    assert maildir.staged_copy(config, two.recipient_id, two.mailbox) == two
    maildir.publish(config, two)
    assert maildir.staged_copy(config, two.recipient_id, two.mailbox) is None
    assert dict(maildir.staged_files(config)) == {one.recipient_id: one.path}


def test_null_reverse_path_is_empty_brackets(config):
    [staged] = maildir.stage(config, letter("office@demo.test", reverse_path=""))
    assert staged.path.read_bytes().startswith(b"Return-Path: <>\r\n")


@pytest.mark.parametrize(
    ("header", "looped"),
    [
        (b"Delivered-To: office@demo.test\r\n", True),
        (b"delivered-to:\tOffice@Demo.Test \r\n", True),
        (b"Delivered-To: sales@demo.test\r\nDelivered-To: office@demo.test\r\n", True),
        (b"Delivered-To: office@demo.test.example\r\n", False),
        (b"X-Delivered-To: office@demo.test\r\nSubject: office@demo.test\r\n", False),
    ],
)
def test_message_that_was_in_this_mailbox_goes_round_in_circles(header, looped):
    assert maildir.was_delivered_to(header, address("office@demo.test")) is looped


def test_letter_without_local_copies_stages_nothing(config):
    assert maildir.stage_all(config, [replace(letter("a@demo.test"), copies=())]) == [()]
