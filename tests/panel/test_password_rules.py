"""Which passwords are refused: beside their field, on every way in, for panel accounts and mailboxes alike."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from panel.mailboxes import services as mailboxes
from panel.operations.services import create_account
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.sign_in import password_rules
from tests.support import world
from tests.support.traces import Traces

pytestmark = pytest.mark.django_db

GOOD = "an unusual password"
LEAKED = "leaked by somebody else"
BAD = {
    "short": "x7-Kq2!p", "common": "Password123", "common, with signs around it": "dragon!!2026",
    "common, written otherwise": "p@ssw0rd2026", "digits": "8203947561", "one character": "zzzzzzzzzzzz",
    "neighbours": "abcdefghijklm", "our name": "Posthouse2026", "the server's name": "mx.posthouse.test1",
    "the address": "ann.miller@acme.test", "the name": "annabel miller!", "leaked": LEAKED,
}


def digest(password: str) -> str:
    return hashlib.sha1(password.encode()).hexdigest().upper()


@pytest.fixture(autouse=True)
def leaked(settings, tmp_path: Path) -> Path:
    """The file of leaks, as Have I Been Pwned's downloader writes it."""
    path = tmp_path / "leaked.txt"
    path.write_bytes(b"".join(b"%s:%d\r\n" % (digest(each).encode(), 7) for each in sorted(
        [LEAKED, *(f"number {number}" for number in range(500))], key=digest,
    )))
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, leaked_passwords=path)
    return path


@pytest.fixture(params=BAD.values(), ids=list(BAD))
def bad(request) -> str:
    return request.param


@pytest.fixture
def acme():
    return world.domain("acme.test", world.tenant("Acme"))


def refused(act) -> None:
    seen = Traces()
    with pytest.raises(ServiceError) as error:
        act()
    assert error.value.field == "password"
    assert str(error.value).endswith(".")
    assert seen.nothing


def test_a_bad_password_is_refused_by_every_service_that_sets_one(bad, acme):
    who = {"name": "Annabel Miller", "actor": None}
    account = create_account(email="ann.miller@elsewhere.test", password=GOOD, **who)
    mailbox = mailboxes.create_mailbox(address="ann.miller@acme.test", password=GOOD, **who)
    refused(lambda: create_account(email="ann.miller@other.test", password=bad, **who))
    refused(lambda: mailboxes.create_mailbox(address="ann.miller2@acme.test", password=bad, **who))
    refused(lambda: mailboxes.set_password(mailbox, bad, actor=None))
    if bad != BAD["the address"]:  # the account has another
        refused(lambda: tenants.set_account_password(account, bad, actor=None))


@pytest.mark.parametrize("password", [
    GOOD, "right horse battery", "dragon 7391 82640 x", "短いけれど珍しい合言葉です", "x7-Kq2!pRt9",
])
def test_a_good_password_is_taken(password, acme):
    mailbox = mailboxes.create_mailbox(address="ann@acme.test", password=password, actor=None)
    mailboxes.set_password(mailbox, password, actor=None)


def test_the_error_stands_beside_the_field(bad, acme):
    owner = create_account(email="owner@provider.test", password=GOOD, provider_role="owner", actor=None)
    mailbox = mailboxes.create_mailbox(address="ann.miller@acme.test", password=GOOD, name="Annabel Miller", actor=None)
    client = Client()
    client.force_login(owner)
    page = client.post(reverse("admin:mailboxes_mailbox_set_password", args=[mailbox.pk]), {"password": bad})
    assert list(page.context["form"].errors) == ["password"]
    assert bad not in page.content.decode().replace("ann.miller@acme.test", "", 3) or bad == BAD["the address"]


def test_the_command_line_refuses_it_too(monkeypatch, acme):
    monkeypatch.setattr("sys.stdin", io.StringIO("Password123\n"))
    with pytest.raises(CommandError, match="most common"):
        call_command("mailbox", "create", "ann@acme.test", "--password-stdin")


# The file of leaks


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b":12\n"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_each_line_of_the_file_is_found_and_nothing_else(tmp_path, end, count):
    path = tmp_path / "leaks"
    digests = sorted(digest(str(number)).encode() for number in range(count))
    path.write_bytes(b"".join(each + end for each in digests).removesuffix(b"\n"))
    assert all(password_rules.stands_in(path, each) for each in digests)
    others = (digest(f"other {number}").encode() for number in range(50))
    assert not any(password_rules.stands_in(path, each) for each in (*others, b"0" * 40, b"F" * 40))


@pytest.mark.parametrize("content", [b"x" * 100_000, b"\n" * 1000, bytes(range(256)) * 50])
def test_a_file_that_is_none_of_leaks_ends_the_search(tmp_path, content):
    path = tmp_path / "leaks"
    path.write_bytes(content)
    assert not password_rules.stands_in(path, digest("x").encode())


def test_a_file_that_is_gone_refuses_nobody_and_is_told(leaked, acme, caplog):
    leaked.unlink()
    mailboxes.create_mailbox(address="ann@acme.test", password=LEAKED, actor=None)
    assert "POSTHOUSE_LEAKED_PASSWORDS" in caplog.text and LEAKED not in caplog.text
