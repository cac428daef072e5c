"""What pages and commands say of a mailbox's storage."""

import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from panel.mailboxes.models import Mailbox, MailboxUsage
from panel.mailboxes.storage import Storage
from tests.support import world

pytestmark = pytest.mark.django_db

GB = 1024**3


@pytest.fixture
def mailbox(tenant) -> Mailbox:
    world.domain("acme.test", tenant)
    return world.mailbox("ann@acme.test", quota_bytes=5 * GB)


def uses(mailbox: Mailbox, used_bytes: int, **fields) -> Mailbox:
    fields = {"messages": 7, "known_at": timezone.now(), **fields}
    MailboxUsage.objects.update_or_create(mailbox=mailbox, defaults={"used_bytes": used_bytes, **fields})
    return Mailbox.objects.select_related("usage").get(pk=mailbox.pk)


@pytest.mark.parametrize(
    ("used", "quota", "words"),
    [
        (3 * GB, 5 * GB, "3.0 GB of 5 GB, 60 %"),
        (6 * GB, 5 * GB, "6.0 GB of 5 GB, 120 %"),
        (0, 5 * GB, "0 bytes of 5 GB, 0 %"),
        (3 * GB, None, "3.0 GB, unlimited"),
        (3 * GB, 0, "3.0 GB of 0 bytes, 100 %"),
    ],
)
def test_words(mailbox, used, quota, words):
    Mailbox.objects.update(quota_bytes=quota)
    assert Storage.of(uses(mailbox, used)).words == words


def test_what_is_not_known_is_not_called_empty(mailbox):
    assert Storage.of(mailbox).words == "not counted yet, 5 GB allowed"
    assert "<meter" not in Storage.of(mailbox).bar()
    assert Storage.of(uses(mailbox, 0, known_at=None)).used_bytes is None


@pytest.mark.parametrize(("percent", "look"), [(79, "is-good"), (80, "is-warn"), (95, "is-bad"), (130, "is-bad")])
def test_bar_has_its_numbers_and_more_than_a_colour(mailbox, percent, look):
    shown = Storage.of(uses(mailbox, -(-percent * GB // 20))).bar()
    assert look in shown and f"{percent} %" in shown
    assert ("▲" in shown or "■" in shown) == (look != "is-good")
    assert f'max="{5 * GB}"' in shown and "style=" not in shown


def test_command_shows_it_to_people_and_programs(mailbox, capsys):
    uses(mailbox, 3 * GB, counted_at=timezone.now() - timedelta(hours=5))
    call_command("mailbox", "show", "ann@acme.test")
    shown = capsys.readouterr().out
    told = dict(line.split(maxsplit=1) for line in shown.splitlines() if len(line.split(maxsplit=1)) == 2)
    assert (told["used"], told["quota"], told["percent"], told["messages"]) == ("3.0 GB", "5 GB", "60", "7")
    call_command("mailbox", "show", "ann@acme.test", "--json")
    facts = json.loads(capsys.readouterr().out)
    assert (facts["used_bytes"], facts["quota_bytes"], facts["percent"], facts["messages"]) == (3 * GB, 5 * GB, 60, 7)
    call_command("mailbox", "list", "--json")
    [row] = json.loads(capsys.readouterr().out)
    assert (row["used_bytes"], row["quota_bytes"]) == (3 * GB, 5 * GB)
    call_command("mailbox", "list")
    assert "3.0 GB  5 GB" in capsys.readouterr().out
    world.mailbox("new@acme.test")
    call_command("mailbox", "show", "new@acme.test")
    assert "unknown" in capsys.readouterr().out, "nothing is known of it yet"


def test_list_asks_no_query_a_row(mailbox):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            call_command("mailbox", "list", stdout=None)
        return len(captured)

    before = queries()
    for number in range(5):
        uses(world.mailbox(f"box{number}@acme.test"), GB)
    assert queries() == before
