"""The search box: what it finds, by which questions, and for whom; the search of the long lists."""

import ipaddress
import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from panel.database.indexed import within
from panel.mailboxes.models import Alias, Credential, LoginEvent, Mailbox
from panel.operations import search as searching
from panel.operations import services as operations
from panel.sending.models import Message, Recipient
from panel.sending.services import set_limit
from panel.tenants.models import Membership, User
from tests.support import queue, world

pytestmark = pytest.mark.django_db

MOST_QUESTIONS = 15
LISTS = {"mailboxes_mailbox": Mailbox, "mailboxes_alias": Alias, "mailboxes_credential": Credential,
         "mailboxes_loginevent": LoginEvent, "sending_message": Message, "sending_recipient": Recipient}


@pytest.fixture
def owner(db) -> User:
    return User.objects.create(email="boss@provider.test", name="The Boss", provider_role="owner", password="!")


@pytest.fixture
def panel(owner: User) -> Client:
    client = Client()
    client.force_login(owner)
    return client


@pytest.fixture
def demo(mailbox: Mailbox, other_tenant) -> Mailbox:
    """shop@demo.test, with mail in and out, beside office@ and another tenant's shop@other.test."""
    world.domain("other.test", other_tenant)
    world.mailbox("shop@other.test", name="Zoe Other")
    world.mailbox("office@demo.test", name="Ann Smith")
    world.alias("info@demo.test", "shop@demo.test", "Friend@elsewhere.test".lower())
    sent = queue.message(mailbox.address.tenant, message_id="<1.x@client.example>", client_ip="203.0.113.9")
    queue.recipient(sent, "Friend@elsewhere.test")
    got = queue.message(
        message_id="<2.x@client.example>", reverse_path="Friend@elsewhere.test", client_ip="2001:db8::7"
    )
    queue.recipient(got, "info@demo.test", resolved="shop@demo.test", recipient_tenant=mailbox.address.tenant)
    world.login_event(mailbox)
    return mailbox


def find(user: User, text: str) -> dict[str, list[str]]:
    """The names by kind."""
    _, groups = searching.search(user, text)
    return {group.title: [hit.name for hit in group.hits] for group in groups}


def test_an_address_is_found_with_all_that_hangs_on_it(demo, owner):
    assert find(owner, "Shop@Demo.test") == {
        "Mailboxes": ["shop@demo.test"],
        "Aliases": ["info@demo.test"],
        "Messages": [Message.objects.get(message_id="<1.x@client.example>").queue_id],
        "Recipients": ["info@demo.test"],
        "Sign-ins": ["shop@demo.test"],
    }


def test_an_address_elsewhere_is_found_however_it_was_written(demo, owner):
    found = find(owner, "friend@ELSEWHERE.test")
    assert found["Recipients"] == ["Friend@elsewhere.test"]
    assert found["Messages"] == [Message.objects.get(message_id="<2.x@client.example>").queue_id]
    assert found["Aliases"] == ["info@demo.test"]


def test_the_beginning_of_an_address_is_enough(demo, owner):
    assert find(owner, "sho")["Mailboxes"] == find(owner, "shop@")["Mailboxes"] == ["shop@demo.test", "shop@other.test"]
    assert find(owner, "shop@oth")["Mailboxes"] == ["shop@other.test"]
    assert find(owner, "@other.test")["Mailboxes"] == ["shop@other.test"]
    assert find(owner, "fri")["Recipients"] == ["Friend@elsewhere.test"]


def test_a_whole_address_is_not_mixed_with_longer_ones(demo, owner):
    queue.recipient(queue.message(demo.address.tenant), "friend@elsewhere.test.example")
    assert find(owner, "friend@elsewhere.test")["Recipients"] == ["Friend@elsewhere.test"]
    assert find(owner, "friend@elsewhere.test.")["Recipients"] == ["friend@elsewhere.test.example"]


def test_names_are_found(demo, owner):
    assert find(owner, "ann sm") == {"Mailboxes": ["office@demo.test"]}
    assert find(owner, "the b") == {"Accounts": ["boss@provider.test"]}
    assert find(owner, "boss@provider.test") == {"Accounts": ["boss@provider.test"]}
    assert find(owner, "the")["Tenants"] == ["Other"]


@pytest.mark.parametrize("text", ["1.x@client.example", "<1.x@client.example>", "203.0.113.9"])
def test_one_hit_is_gone_to_at_once(demo, panel, text):
    message = Message.objects.get(message_id="<1.x@client.example>")
    answer = panel.get(reverse("search"), {"q": text})
    assert answer.headers["Location"] == reverse("admin:sending_message_change", args=(message.pk,))


def test_a_queue_id_a_domain_and_a_domain_alias_are_gone_to_at_once(demo, panel):
    message = Message.objects.first()
    alias = world.domain_alias("demo.example", demo.address.domain)
    for text, view, pk in [
        (message.queue_id.lower(), "sending_message", message.pk),
        ("DEMO.test", "domains_domain", demo.address.domain_id),
        ("demo.example", "domains_domainalias", alias.pk),
    ]:
        answer = panel.get(reverse("search"), {"q": text})
        assert answer.headers["Location"] == reverse(f"admin:{view}_change", args=(pk,)), text


@pytest.mark.parametrize(("network", "inside", "outside"), [
    ("203.0.113.0/24", "203.0.113.255", "203.0.114.0"), ("203.0.112.0/22", "203.0.115.9", "203.0.116.1"),
    ("203.0.113.8/29", "203.0.113.15", "203.0.113.16"), ("203.0.0.0/16", "203.0.9.9", "203.1.0.0"),
    ("192.0.0.0/3", "203.0.9.9", "19.1.0.0"), ("2001:db8::/32", "2001:db8:5::1", "2001:db9::1"),
])
def test_a_network_holds_its_addresses_alone(db, network, inside, outside):
    first, _ = (queue.message(client_ip=ip) for ip in (inside, outside))
    assert [row.pk for row in Message.objects.filter(within("client_ip", ipaddress.ip_network(network)))] == [first.pk]


def test_more_than_ten_are_left_to_the_list(demo, panel):
    for at in range(12):
        queue.recipient(queue.message(demo.address.tenant), f"many{at}@elsewhere.test")
    page = panel.get(reverse("search"), {"q": "many"}).content.decode()
    assert "the first 10" in page
    assert f'{reverse("admin:sending_recipient_changelist")}?q=many' in page
    listed = panel.get(reverse("admin:sending_recipient_changelist"), {"q": "many"})
    assert len(listed.context["cl"].result_list) == 12


def test_nothing_found_says_what_was_looked_for_where_and_what_can_be_typed(demo, panel):
    page = panel.get(reverse("search"), {"q": "nobody@nowhere.test"}).content.decode()
    assert "nobody@nowhere.test" in page
    assert "tenants, domains, mailboxes, aliases and accounts" in page
    assert "a queue id" in page
    assert "among the clients" in panel.get(reverse("search"), {"q": "198.51.100.1"}).content.decode()


@pytest.mark.parametrize("text", ["2001:db8:0:1::/64", "2001:db8::/33", "0.0.0.0/0"])
def test_a_network_that_was_not_looked_for_is_not_said_to_be_nowhere(demo, panel, text):
    page = panel.get("/admin/search/", {"q": text}, follow=True).content.decode()
    assert ("It was not looked for" in page) == (connection.vendor == "sqlite")
    assert "Looked for among" not in page or connection.vendor == "postgresql"


def test_every_page_has_the_box(demo, panel):
    for path in (reverse("admin:index"), reverse("admin:sending_message_changelist"), reverse("account:own"),
                 reverse("admin:mailboxes_mailbox_change", args=(demo.pk,))):
        assert f'action="{reverse("search")}"' in panel.get(path).content.decode(), path


def test_nobody_else_searches(demo):
    member = operations.create_account(email="member@demo.example", password="an unusual password", actor=None)
    Membership.objects.create(user=member, tenant=demo.address.tenant, role="owner")
    client = Client()
    assert client.get(reverse("search"), {"q": "shop"}).status_code == 302
    client.force_login(member)
    assert "/login/" in client.get(reverse("search"), {"q": "shop"}).headers["Location"]


def test_a_tenants_account_would_find_its_own_alone(demo):
    """No page does that: the questions are scoped all the same."""
    member = operations.create_account(email="member@demo.example", password="an unusual password", actor=None)
    Membership.objects.create(user=member, tenant=demo.address.tenant, role="owner")
    assert find(member, "shop")["Mailboxes"] == ["shop@demo.test"]
    assert find(member, "other") == find(member, "boss@provider.test") == find(member, "other.test") == {}
    assert find(member, Message.objects.get(message_id="<2.x@client.example>").queue_id) == {}


HOSTILE = ["<script>alert(1)</script>", "%", "_", "\\", "'; DROP TABLE x; --", "a\x00b", "a\u202eb", "{{ 7*7 }}",
           "x" * 20_000, "@", "@@", "a@b@c", "1/0", "0.0.0.0/0", "::/0", '"', "\U0001f4ef" * 90, "[", "<>"]


@pytest.mark.once("postgresql")  # the stricter about texts
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_finds_nothing_and_harms_nothing(demo, panel, text):
    answer = panel.get(reverse("search"), {"q": text})
    if text not in ("0.0.0.0/0", "::/0", "@"):
        assert answer.context["groups"] == []
    assert "<script>alert" not in answer.content.decode("utf-8", "replace")
    for view in LISTS:
        listed = panel.get(reverse(f"admin:{view}_changelist"), {"q": text})
        assert listed.status_code == 200, view


TEXTS = ["shop@demo.test", "shop", "sho@", "@demo.test", "demo.test", "203.0.113.9", "203.0.0.0/16", "ann smith",
         "<1.x@client.example>", "international", "zzz"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_search_asks_few_questions_however_much_there_is(demo, panel, text):
    panel.get(reverse("search"))
    with CaptureQueriesContext(connection) as asked:
        panel.get(reverse("search"), {"q": text})
    assert len(asked) <= MOST_QUESTIONS, [each["sql"][:200] for each in asked]


LONG = ("sending_message", "sending_recipient", "mailboxes_address", "mailboxes_mailbox", "mailboxes_alias",
        "mailboxes_aliastarget", "mailboxes_loginevent", "mailboxes_credential")


@pytest.mark.parametrize("text", [text for text in TEXTS if "." not in text or "@" in text or text[0] == "2"])
def test_every_long_table_is_asked_by_an_index(demo, panel, owner, text):
    with CaptureQueriesContext(connection) as asked:
        searching.search(owner, text)
        for view in LISTS:
            panel.get(reverse(f"admin:{view}_changelist"), {"q": text})
    read = []
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        for each in asked:
            if not each["sql"].startswith("SELECT") or " WHERE " not in each["sql"]:
                continue
            explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
            cursor.execute(explain + each["sql"])
            for line in (str(row[-1]) for row in cursor.fetchall()):
                if re.search(rf"(?:^SCAN|Seq Scan on) ({'|'.join(LONG)})\b(?! USING)", line):
                    read.append((line, each["sql"]))
    assert read == []


@pytest.mark.parametrize(("view", "text", "names"), [
    ("mailboxes_mailbox", "SHOP@", ["shop@demo.test", "shop@other.test"]),
    ("mailboxes_mailbox", "shop@demo.test", ["shop@demo.test"]),
    ("mailboxes_mailbox", "other.test", ["shop@other.test"]),
    ("mailboxes_mailbox", "ann", ["office@demo.test"]),
    ("mailboxes_alias", "inf", ["info@demo.test"]),
    ("mailboxes_alias", "friend@elsewhere.test", ["info@demo.test"]),
    ("mailboxes_credential", "office@demo.test", ["main password"]),
    ("mailboxes_loginevent", "192.0.2.0/24", ["shop@demo.test: logged in"]),
    ("mailboxes_loginevent", "SHOP@demo.test", ["shop@demo.test: logged in"]),
    ("sending_recipient", "shop@demo.test", ["info@demo.test"]),
    ("sending_recipient", "FRIEND@", ["Friend@elsewhere.test"]),
])
def test_a_list_is_searched_by_how_things_begin(demo, panel, view, text, names):
    listed = panel.get(reverse(f"admin:{view}_changelist"), {"q": text})
    assert sorted(map(str, listed.context["cl"].result_list)) == names


@pytest.mark.parametrize(("text", "subjects"), [
    ("shop@demo", ["shop@demo.test"]), ("demo.test", ["demo.test", "shop@demo.test"]), ("DEM", ["Demo"]), ("zzz", []),
])
def test_a_limit_is_found_by_whose_it_is(demo, panel, text, subjects):
    for subject in (demo, demo.address.domain, demo.address.tenant):
        set_limit(subject, window="hour", recipients=1, actor=None)
    listed = panel.get(reverse("admin:sending_sendinglimit_changelist"), {"q": text})
    found = [str(each).partition(": ")[0] for each in listed.context["cl"].result_list]
    assert sorted(found, key=str.lower) == sorted(subjects, key=str.lower)


@pytest.mark.parametrize("text", ["friend@elsewhere.test", "info@demo.test", "<2.x@client.example>", "2001:db8::7"])
def test_the_list_of_messages_knows_sender_recipient_message_id_and_client(demo, panel, text):
    message = Message.objects.get(message_id="<2.x@client.example>")
    listed = panel.get(reverse("admin:sending_message_changelist"), {"q": text})
    assert message in listed.context["cl"].result_list


def test_a_list_says_when_it_holds_the_first_alone(demo, panel, monkeypatch):
    from panel.tenants import listed

    monkeypatch.setattr(listed, "MOST_LISTED", 1)
    answer = panel.get(reverse("admin:mailboxes_mailbox_changelist"), {"q": "shop@"})
    assert len(answer.context["cl"].result_list) == 1
    assert "Type more" in answer.content.decode()
