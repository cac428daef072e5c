"""Large bodies as files: durable when kept, gone when nobody needs them."""

import errno
import hashlib
import os
import time

import pytest

from mailserver.content import ABANDONED_S, ContentStore
from panel.database import ids
from tests.support import letters

BLOCKS = [b"From: a@b.test\r\n\r\n", b"x" * 70_000, b"\r\n"]
WHOLE = b"".join(BLOCKS)


@pytest.fixture
def content(tmp_path) -> ContentStore:
    return ContentStore(letters.config(tmp_path))


def spilled(content: ContentStore):
    spill = content.new_spill()
    for block in BLOCKS:
        spill.write(block)
    return spill.finish()


def age(path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_spilled_body_is_whole_and_known_by_its_hash(content):
    body = spilled(content)
    assert body.path.read_bytes() == WHOLE
    assert (body.size, body.sha256, body.data) == (len(WHOLE), hashlib.sha256(WHOLE).hexdigest(), None)


def test_discarded_spill_leaves_nothing(content):
    spill = content.new_spill()
    spill.write(b"half")
    spill.discard()
    content.discard(spilled(content))
    assert os.listdir(content.folder) == []


def test_kept_body_is_named_by_its_message(content):
    number = letters.IDS.next()
    assert content.keep([(number, spilled(content))]) == [ids.to_text(number)]
    assert os.listdir(content.folder) == [ids.to_text(number)]
    assert content.path(ids.to_text(number)).read_bytes() == WHOLE


def test_keep_syncs_each_file_and_the_folder_once(content, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    content.keep([(letters.IDS.next(), spilled(content)) for _ in range(3)])
    assert len(synced) == 4
    assert synced[-1] == str(content.folder)


def test_body_that_can_not_be_kept_fails_alone(content, monkeypatch):
    bad, good = spilled(content), spilled(content)
    whole = os.rename

    def rename(source, target):
        if source == bad.path:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(source, target)

    monkeypatch.setattr(os, "rename", rename)
    first, second = content.keep([(letters.IDS.next(), bad), (letters.IDS.next(), good)])
    assert first.errno == errno.ENOSPC
    assert content.path(second).exists()


def test_body_of_another_message_is_never_replaced(content):
    """Ids repeat when the clock was set back before a start."""
    [key] = content.keep([(7, spilled(content))])
    spill = content.new_spill()
    spill.write(b"another")
    [refused] = content.keep([(7, spill.finish())])
    assert isinstance(refused, FileExistsError)
    assert content.path(key).read_bytes() == WHOLE


def test_nothing_is_kept_if_the_folder_can_not_be_synced(content, monkeypatch):
    bodies = [(letters.IDS.next(), spilled(content)) for _ in range(2)]
    whole = os.fsync

    def fsync(descriptor):
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(content.folder):
            raise OSError(errno.EIO, "Input/output error")
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    assert [result.errno for result in content.keep(bodies)] == [errno.EIO] * 2
    assert os.listdir(content.folder) == []


def test_key_is_never_a_path(content):
    with pytest.raises(ValueError, match="is not an id"):
        content.path("../db.sqlite3")


def test_sweep_removes_what_no_row_names_after_a_day(content):
    used, unused, young = (letters.IDS.next() for _ in range(3))
    content.keep([(number, spilled(content)) for number in (used, unused, young)])
    abandoned, receiving = spilled(content), spilled(content)
    foreign = content.folder / "README"
    foreign.write_text("not ours")
    for path in (content.path(ids.to_text(used)), content.path(ids.to_text(unused)), abandoned.path, foreign):
        age(path, ABANDONED_S + 60)
    assert content.sweep(lambda keys: {ids.to_text(used)} & set(keys)) == 2
    assert set(os.listdir(content.folder)) == {
        ids.to_text(used), ids.to_text(young), receiving.path.name, "README",
    }
