"""The message log: what each of two tenants sees of one message, what a search finds, and what one may do."""

import csv
import io
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from panel.console import message_export
from panel.database import ids
from panel.rules.log_query import parse
from panel.sending import log_search, whereabouts
from panel.sending.models import Recipient
from panel.tenants import services as tenants
from panel.tenants.models import AuditEntry, Tenant, User
from tests.support import queue, world

pytestmark = pytest.mark.django_db

OF_ACME = ("203.0.113.9", "web shop", "Invoice", "bob@elsewhere.test", "4711.a7", "12 of 200", "shop@web")
OF_BETA = ("secret", "hidden@", "mx.inside.test")


def member(tenant: Tenant, role: str = "owner") -> Client:
    account = User.objects.create(kind=User.Kind.PANEL, email=f"{role}-{tenant.pk}@letters.test", password="!")
    tenants.create_membership(user=account, tenant=tenant, role=role, actor=None)
    client = Client()
    client.force_login(account)
    return client


@pytest.fixture
def acme():
    tenant = world.tenant("Acme")
    world.domain("acme.test", tenant)
    return tenant


@pytest.fixture
def beta():
    tenant = world.tenant("Beta")
    world.domain("beta.test", tenant)
    world.alias("team@beta.test", "hidden@beta.test", "carl@secret.test")
    return tenant


@pytest.fixture
def sent(acme, beta):
    """Acme's, to somebody elsewhere and to an alias of Beta's, which leads outside too."""
    message = queue.message(
        acme, reverse_path="shop@acme.test", message_id="<4711.a7@acme.test>", header_from="shop@web.acme.test",
        facts={"charged": [
            {"kind": "credential", "id": 1, "name": "web shop", "window": "hour", "used": 12, "allowed": 200}
        ]},
    )
    queue.attempt(queue.recipient(
        message, "bob@elsewhere.test", state="waiting", last_reply="451 4.7.1 Greylisted", tries=2,
        due_at=timezone.now() + timedelta(minutes=5),
    ), at=timezone.now() - timedelta(minutes=5))
    for name, state in (("hidden@beta.test", "delivered"), ("carl@secret.test", "waiting")):
        queue.attempt(queue.recipient(
            message, "team@beta.test", resolved=name, state=state, recipient_tenant=beta, last_reply=f"450 {name}",
        ), host="mx.inside.test", reply=f"450 {name}")
    return message


def text(client: Client, path: str, **headers) -> str:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200, path
    return answer.content.decode().replace("<wbr>", "")


def assert_tells_nothing(page: str, secrets: tuple[str, ...]) -> None:
    assert [each for each in secrets if each in page] == []


def test_each_of_two_tenants_sees_its_side_of_a_message_and_a_third_none(acme, beta, sent):
    ours, theirs = member(acme), member(beta)
    for client, tenant, secrets, seen in (
        (ours, acme, OF_BETA, ("bob@elsewhere.test", "team@beta.test", "Invoice 4711", "451 4.7.1 Greylisted")),
        (theirs, beta, OF_ACME, ("team@beta.test", "shop@acme.test")),
    ):
        page = f"/t/{tenant.pk}/messages/{sent.queue_id}/"
        for path in (page, f"/t/{tenant.pk}/messages/", f"/t/{tenant.pk}/messages/?q=id:{sent.queue_id}"):
            found = text(client, path)
            assert_tells_nothing(found, secrets)
            assert all(each in found for each in seen), path
        live = text(client, page, hx_request="true")
        assert_tells_nothing(live, secrets)
        assert "<h1" not in live and 'hx-trigger="every ' in live
    own = text(ours, f"/t/{acme.pk}/messages/{sent.queue_id}/")
    assert all(each in own for each in ("203.0.113.9", "web shop, 1 hour", "12 of 200", "4711.a7", "TLS 1.3", "try 2"))
    assert "Try now" in own and own.count("team@beta.test") == 1
    # Beta sees where its alias led, and may do nothing about what Acme caused.
    their = text(theirs, f"/t/{beta.pk}/messages/{sent.queue_id}/")
    assert "carl@secret.test" in their and "Try now" not in their and "Give up" not in their
    third = world.tenant("Third")
    assert member(third).get(f"/t/{third.pk}/messages/{sent.queue_id}/").status_code == 404


def test_how_many_are_behind_anothers_alias_stays_hidden_however_many(acme, beta, monkeypatch):
    monkeypatch.setattr(whereabouts, "MOST", 3)
    message = queue.message(acme)
    for number, state in enumerate(["delivered"] * 4 + ["discarded"]):
        queue.recipient(message, "team@beta.test", resolved=f"{number}@beta.test", recipient_tenant=beta, state=state)
    where = whereabouts.of(acme.pk, message.pk)
    assert [(each.original, each.state) for each in where.recipients] == [("team@beta.test", "discarded")]
    assert not where.more
    assert whereabouts.of(beta.pk, message.pk).more, "of its own alias it may know"
    for number in range(5, 150):
        queue.recipient(message, "team@beta.test", resolved=f"{number}@beta.test", recipient_tenant=beta)
    page = log_search.find(acme.pk, parse("", timezone.now())[0], most=10)
    assert [each.original for each in page.rows] == ["team@beta.test"] and not page.after
    queue.recipient(message, "bob@elsewhere.test")
    assert whereabouts.of(acme.pk, message.pk).more, "that is another one, which isn't shown"


SEARCHES = {
    # what is typed: what Acme finds, and Beta
    "": (["bob", "team"], ["team", "team"]),
    "to:BOB@elsewhere.test": (["bob"], []),
    "to:bob@elsewhere.tes": ([], []),
    "to:bob": (["bob"], []),
    "to:ob": ([], []),
    "to:@elsewhere.test": (["bob"], []),
    "to:where.test": ([], []),
    "domain:elsewhere.test": (["bob"], []),
    "domain:where.test": ([], []),
    "domain:acme.test": (["bob", "team"], ["team", "team"]),
    "domain:beta.test": (["team"], ["team", "team"]),
    # What an address of Beta's leads to is found by Beta alone.
    "to:carl@secret.test": ([], ["team"]),
    "domain:secret.test": ([], []),
    "from:shop@acme.test": (["bob", "team"], ["team", "team"]),
    "from:shop@acme.test status:waiting": (["bob", "team"], ["team"]),
    "from:shop@acme.tes": ([], []),
    "from:@acme.test after:1h": (["bob", "team"], ["team", "team"]),
    "before:1h": ([], []),
    "status:delivered": ([], ["team"]),
    "status:waiting": (["bob", "team"], ["team"]),
    "status:bounced": ([], []),
    "status:held": ([], []),
    # The subject and the client are the submitter's.
    "invoice": (["bob", "team"], []),
    "ip:203.0.113.9": (["bob", "team"], []),
    "ip:203.0.113.0/24": (["bob", "team"], []),
    "ip:203.0.113.8": ([], []),
}


def test_a_search_finds_what_the_tenant_may_see_and_no_name_by_a_part_of_it(acme, beta, sent):
    third = world.tenant("Third")
    wrong = {}
    for typed, (ours, theirs) in SEARCHES.items():
        query, faults = parse(typed, timezone.now())
        assert not faults
        for tenant, expected in ((acme, ours), (beta, theirs), (third, [])):
            page = log_search.find(tenant.pk, query)
            found = sorted(each.original.partition("@")[0] for each in page.rows)
            if found != expected or page.after:
                wrong[typed, tenant.name] = found, page.after
    assert not wrong


def test_every_search_is_paged_by_key_without_a_loss_or_a_double(acme, beta, monkeypatch):
    monkeypatch.setattr(log_search, "LOOKED_AT", 3)
    monkeypatch.setattr(log_search, "LOOKED_AT_WITH_MESSAGES", 3)
    for at in range(4):
        message = queue.message(acme, reverse_path="shop@acme.test")
        for name in ("bob", "carl"):
            queue.recipient(message, f"{name}@elsewhere.test", state="waiting" if at % 2 else "failed")
        queue.waiting(beta, "bob@elsewhere.test")
    everything = list(Recipient.objects.filter(tenant=acme).order_by("-pk").values_list("pk", flat=True))
    bobs = [pk for pk in everything if Recipient.objects.get(pk=pk).original.startswith("bob")]
    for typed, expected in (
        ("", everything), ("from:shop@acme.test", everything), ("domain:elsewhere.test", everything),
        ("to:bob@elsewhere.test", bobs), ("to:bob", bobs), ("invoice", everything), ("ip:203.0.113.9", everything),
        ("status:waiting", everything[0:2] + everything[4:6]),
    ):
        query, after, found = parse(typed, timezone.now())[0], "", []
        for _ in range(20):
            page = log_search.find(acme.pk, query, after, most=2)
            found += [each.id for each in page.rows]
            after = page.after
            if not after:
                break
        assert found == expected, typed


def test_the_list_says_what_was_searched_and_what_is_wrong_in_the_search(acme, sent):
    client, path = member(acme, "viewer"), f"/t/{acme.pk}/messages/"
    none = text(client, f"{path}?q=to:nobody@elsewhere.test")
    assert "There are no messages to nobody@elsewhere.test. All of them were searched, back to the first: " in none
    wrong = text(client, f"{path}?q=status:lost")
    assert "There is no state “lost”" in wrong and 'value="status:lost"' in wrong and 'aria-invalid="true"' in wrong
    hostile = text(client, f"{path}?q=%22%3Cscript%3Ealert(1)%3C/script%3E%00%22&after=9.x")
    assert "<script>alert" not in hostile
    for far in ("1" * 41, "1" * 5000):
        assert client.get(f"{path}?after={far}.1").status_code == 200
    assert client.get(f"/t/{acme.pk}/messages/{ids.to_text((1 << 63) - 1)}/").status_code == 404


def test_a_tenant_tries_again_and_gives_up_what_it_caused_alone(acme, beta, sent):
    path, client = f"/t/{acme.pk}/messages/{sent.queue_id}/", member(acme)
    bob = Recipient.objects.get(original="bob@elsewhere.test")
    hidden = Recipient.objects.get(resolved="carl@secret.test")
    assert member(acme, "viewer").post(f"{path}try/").status_code == 403
    client.post(f"{path}try/")
    assert Recipient.objects.get(pk=bob.pk).due_at <= timezone.now()
    assert Recipient.objects.get(pk=hidden.pk).due_at == hidden.due_at, "the way behind Beta's address is Beta's"
    assert AuditEntry.objects.get(action="queue.retried").tenant == acme
    queue.attempt(bob)
    client.post(f"{path}try/")
    assert AuditEntry.objects.filter(action="queue.retried").count() == 1, "tried less than a minute ago"
    # Another's recipient in the address is none of this message's that may be given up.
    client.post(f"{path}give-up/?recipient={hidden.pk}")
    theirs = f"/t/{beta.pk}/messages/{sent.queue_id}/give-up/"
    member(beta).post(theirs)
    assert set(Recipient.objects.filter(message=sent).values_list("state", flat=True)) == {"waiting", "delivered"}
    assert "bob@elsewhere.test" in text(client, f"{path}give-up/")
    client.post(f"{path}give-up/", {"reason": "sent twice"})
    assert Recipient.objects.get(pk=bob.pk).state == "discarded"
    assert Recipient.objects.get(pk=hidden.pk).state == "waiting"
    entry = AuditEntry.objects.get(action="queue.discarded")
    assert (entry.tenant, entry.reason, entry.subject_name) == (acme, "sent twice", sent.queue_id)


def test_a_page_asks_again_until_all_is_done(acme):
    row = queue.waiting(acme, "bob@elsewhere.test")
    client, path = member(acme), f"/t/{acme.pk}/messages/{row.message.queue_id}/"
    for state, holds, ahead, trigger in (
        ("waiting", 0, 10, 'hx-trigger="every 3s"'), ("waiting", 0, 3600, 'hx-trigger="every 30s"'),
        ("waiting", 1, 10, ""), ("delivered", 0, 0, ""), ("failed", 0, 0, ""),
    ):
        due = timezone.now() + timedelta(seconds=ahead)
        Recipient.objects.filter(pk=row.pk).update(state=state, holds=holds, due_at=due)
        for found in (text(client, path), text(client, path, hx_request="true")):
            assert (trigger in found) if trigger else ("hx-trigger" not in found), (state, holds)
    assert "Bounced" in found


def test_pages_ask_few_questions_also_where_own_aliases_lead_elsewhere(acme, django_assert_max_num_queries):
    world.mailbox("ann@acme.test")
    world.alias("in@acme.test", "ann@acme.test", "away@elsewhere.test")
    client = member(acme)
    for _ in range(5):
        for message in (queue.message(), queue.message(acme, reverse_path="shop@acme.test")):
            for resolved in ("ann@acme.test", "away@elsewhere.test"):
                queue.attempt(queue.recipient(
                    message, "in@acme.test", resolved=resolved, tenant=acme, recipient_tenant=acme
                ))
    path = f"/t/{acme.pk}/messages/"
    for asked in ("", "?q=domain:acme.test", "?q=from:shop@acme.test", "?q=to:in@acme.test", f"{message.queue_id}/"):
        with django_assert_max_num_queries(15):
            assert "away" in text(client, path + asked) or not asked.endswith("/")


def test_the_box_goes_straight_to_what_is_named_and_knows_nothing_of_others(acme, beta, sent):
    client, path = member(acme), f"/t/{acme.pk}/search/"
    page = f"/t/{acme.pk}/messages/{sent.queue_id}/"
    for named in (sent.queue_id, sent.queue_id.lower(), "<4711.a7@acme.test>", "4711.a7@acme.test"):
        assert client.get(path, {"q": named}).headers.get("Location") == page, named
    there = member(beta)
    assert there.get(f"/t/{beta.pk}/search/", {"q": sent.queue_id}).headers["Location"].startswith(f"/t/{beta.pk}/")
    # Its Message-ID is the submitter's.
    assert "Location" not in there.get(f"/t/{beta.pk}/search/", {"q": "<4711.a7@acme.test>"}).headers
    world.mailbox("ann@acme.test")
    world.mailbox("ann@beta.test")
    found = text(client, f"{path}?q=ann")
    assert "ann@acme.test" in found and "beta" not in found
    assert 'name="q" value="ann"' in client.get(path, {"q": "ann"}).content.decode(), "what was typed stays"
    for other in ("beta.test", "203.0.113.9"):
        location = client.get(path, {"q": other}).headers["Location"]
        assert location.startswith(f"/t/{acme.pk}/messages/?q=")
    assert "ann@acme.test" not in text(client, f"{path}?q=ann@acme.tes"), "an address is meant whole"


def test_the_present_search_is_exported_as_the_list_shows_it_bounded_and_as_text(acme, beta, sent, monkeypatch):
    client, path = member(acme, "viewer"), f"/t/{acme.pk}/messages/export/"
    odd = queue.message(acme, reverse_path="=x@acme.test", subject="=cmd|x\r\n,\"a")
    queue.recipient(odd, "+1@elsewhere.test", state="failed", last_reply="550\r\n=no")

    def rows(**query):
        answer = client.get(path, query)
        assert answer.status_code == 200 and answer.streaming and answer["Content-Type"].startswith("text/csv")
        assert answer["Content-Disposition"].startswith("attachment;")
        return list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))

    everything = rows()
    assert everything[0]["to"] == "'+1@elsewhere.test" and everything[0]["from"] == "'=x@acme.test"
    assert everything[0]["state"] == "bounced" and everything[0]["subject"].startswith("'=cmd|x")
    assert {each["to"] for each in everything[1:]} == {"bob@elsewhere.test", "team@beta.test"}
    assert "hidden" not in str(everything) and "secret" not in str(everything)
    waiting = rows(q="status:waiting to:bob@elsewhere.test")
    assert [(each["to"], each["queue_id"], each["reply"]) for each in waiting] == [
        ("bob@elsewhere.test", sent.queue_id, "451 4.7.1 Greylisted")
    ]
    assert "export/?q=status%3Awaiting" in text(client, f"/t/{acme.pk}/messages/?q=status:waiting")
    wrong = client.get(path, {"q": "status:nonsense"})
    assert wrong.status_code == 302 and wrong["Location"].startswith(f"/t/{acme.pk}/messages/?q=")
    monkeypatch.setattr(message_export, "MOST_ROWS", 1)
    cut = rows()
    assert len(cut) == 2 and cut[1]["sent_by"] == message_export.MORE and cut[1]["when"]
    monkeypatch.setattr(message_export, "AT_ONCE", 1)
    monkeypatch.setattr(message_export, "MOST_ROWS", 10)
    assert rows() == everything
    assert client.get(f"/t/{beta.pk}/messages/export/").status_code == 404
