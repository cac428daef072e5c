"""The provider's pages of the queue: by next hop, the list's sentence, acts on many at once, a message's place."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from panel.operations import services as operations
from panel.sending import bulk
from panel.sending.models import BulkAct, Hold, Message, Recipient
from panel.sending.selection import Selection
from panel.tenants.models import AuditEntry
from panel.tenants.scoped_admin import PAGE
from tests.support import queue, world

pytestmark = pytest.mark.django_db

QUEUE, RECIPIENTS = "/admin/sending/recipient/queue/", "/admin/sending/recipient/"


def client_of(role: str) -> Client:
    client = Client()
    client.force_login(operations.create_account(
        email=f"{role}@provider.test", password="an unusual password", provider_role=role, actor=None
    ))
    return client


@pytest.fixture
def operator() -> Client:
    return client_of("operator")


@pytest.fixture
def support() -> Client:
    return client_of("support")


def text_of(client: Client, url: str) -> str:
    """What the page says, without its tags."""
    page = client.get(url)
    assert page.status_code == 200, url
    said = page.content.decode().partition('id="content"')[2]
    return " ".join(re.sub(r"<[^>]+>", " ", said).split())


def number_of_queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(connection) as asked:
        assert client.get(url).status_code == 200
    return len(asked)


# By next hop


def test_queue_groups_what_waits_by_next_hop_and_leads_to_it(operator, tenant):
    due = timezone.now() + timedelta(minutes=4, seconds=30)
    for n in range(3):
        row = queue.waiting(tenant, f"a{n}@slow.test", due_at=due, tries=1, last_reply="451 4.7.1 Greylisted")
        queue.attempt(row)
    queue.waiting(tenant, "b@slow.test", holds=Hold.SUSPENDED)
    queue.waiting(tenant, "c@gone.test", holds=Hold.UNDELIVERABLE)
    queue.waiting(tenant, "d@new.test")
    queue.recipient(queue.message(tenant), "e@done.test")
    said = text_of(operator, QUEUE)
    assert "6 recipients wait for 3 next hops; the oldest was accepted just now . 2 of them are held." in said
    assert "slow.test 1 held 1 sender suspended 4 just now" in said
    assert "in 4 min 451 4.7.1 Greylisted just now" in said
    assert "none: all held" in said and "not tried yet" in said and "done.test" not in said
    page = operator.get(QUEUE).content.decode()
    for url, number in (
        ("?state__exact=waiting&amp;hop=slow.test", 4),
        ("?state__exact=waiting&amp;holds=suspended&amp;hop=slow.test", 1), ("?state__exact=waiting&amp;holds=any", 2),
    ):
        assert f'href="{RECIPIENTS}{url}"' in page
        assert len(operator.get(RECIPIENTS + url.replace("&amp;", "&")).context["cl"].result_list) == number
    assert "gone.test" not in text_of(operator, QUEUE + "?q=SLOW")
    assert "with “ nowhere ” in its name" in text_of(operator, QUEUE + "?q=nowhere")


def test_empty_queue_tells_silence_from_failure(operator, tenant):
    assert "Nothing waits. No message was accepted yet." in text_of(operator, QUEUE)
    queue.recipient(queue.message(tenant), "a@done.test")
    assert "Nothing waits. The last message was accepted just now ." in text_of(operator, QUEUE)


def test_queue_and_its_list_ask_as_much_of_many_as_of_few(operator, tenant):
    filtered = f"{RECIPIENTS}?state__exact=waiting&sender=demo.test&tenant__id__exact={tenant.pk}"
    operator.get(QUEUE)
    counts = []
    for number in (2, 12):
        for n in range(number):
            row = queue.waiting(tenant, f"x@hop{n}.test", tries=1, last_reply="451 later", holds=n % 4)
            queue.attempt(row)
        counts.append([number_of_queries(operator, url) for url in (QUEUE, filtered)])
    assert counts[0] == counts[1]
    assert max(counts[1]) <= 10


def test_support_sees_the_queue_and_is_offered_no_act(support, tenant):
    queue.waiting(tenant, "a@slow.test")
    act = bulk.ask("retry", bulk.Selection(), actor=None)
    for url in (QUEUE, f"{RECIPIENTS}?state__exact=waiting", reverse("admin:sending_bulkact_change", args=(act.pk,))):
        page = support.get(url).content.decode()
        assert "/bulk/" not in page and "go-on" not in page
    for url in (
        f"{RECIPIENTS}bulk/retry/?hop=slow.test", f"{RECIPIENTS}bulk/discard/?hop=slow.test",
        *(reverse(f"admin:sending_bulk_{name}", args=(act.pk,)) for name in ("go_on", "stop")),
    ):
        assert support.get(url).status_code == support.post(url, {"reason": "x"}).status_code == 403
    act.refresh_from_db()
    assert act.looked_at == 0 and act.finished_at is None and BulkAct.objects.count() == 1


# The sentence, and acts on what it names


def test_filters_read_as_a_sentence_with_the_count_of_what_waits(operator, tenant):
    for n in range(2):
        queue.waiting(tenant, f"a{n}@slow.test")
    queue.recipient(queue.message(tenant), "b@slow.test")
    url = f"{RECIPIENTS}?state__exact=waiting&hop=slow.test&tenant__id__exact={tenant.pk}"
    assert "2 waiting recipients to slow.test of the tenant Demo" in text_of(operator, url)
    assert "Try all of these now" in text_of(operator, url)
    delivered = text_of(operator, f"{RECIPIENTS}?state__exact=delivered&hop=slow.test")
    assert "Delivered recipients to slow.test" in delivered and "all of these" not in delivered
    for odd in ("older=soon", "hop=%00", "message=x", "tenant__id__exact=x", "recipient=%0a", "holds=x", "state=x"):
        assert operator.get(f"{RECIPIENTS}?{odd}").status_code in (200, 302), odd


def confirmed(client: Client, kind: str, params: str, **data) -> BulkAct:
    """The act that is asked for after its page was read."""
    url = f"{RECIPIENTS}bulk/{kind}/?{params}"
    form = client.get(url).context["form"]
    answer = client.post(url, {"upto": form["upto"].value(), "asked_at": form["asked_at"].value(), **data})
    assert answer.status_code == 302, answer.context["form"].errors
    act = BulkAct.objects.latest("pk")
    assert answer.headers["Location"] == reverse("admin:sending_bulkact_change", args=(act.pk,))
    return act


def test_discard_names_the_sentence_and_the_count_then_goes_by_steps_to_its_report(operator, tenant, monkeypatch):
    monkeypatch.setattr(bulk, "STEP", 3)
    for n in range(5):
        queue.waiting(tenant, f"a{n}@slow.test")
    url = f"{RECIPIENTS}bulk/discard/?hop=slow.test"
    assert "Give up 5 waiting recipients to slow.test" in text_of(operator, url)
    assert not BulkAct.objects.exists() and not AuditEntry.objects.filter(action__startswith="queue").exists()
    refused = operator.post(url, {"upto": 2**62, "asked_at": timezone.now().isoformat(), "reason": ""})
    assert list(refused.context["form"].errors) == ["reason"]
    act = confirmed(operator, "discard", "hop=slow.test", reason="the domain is gone")
    entry = AuditEntry.objects.get(action="queue.discard_asked")
    assert (entry.tenant, entry.actor_name, entry.reason, entry.ip) == (
        tenant, "operator@provider.test", "the domain is gone", "127.0.0.1"
    )
    page = reverse("admin:sending_bulkact_change", args=(act.pk,))
    go_on = reverse("admin:sending_bulk_go_on", args=(act.pk,))
    assert "0 of 5, 0 %" in text_of(operator, page) and "carry_on.js" in operator.get(page).content.decode()
    assert act.which in text_of(operator, QUEUE), "what is not at its end is found again"
    assert operator.get(go_on).status_code == 405
    assert "3 of 5, 60 %" in operator.post(go_on, follow=True).content.decode()
    done = operator.post(go_on, follow=True).content.decode()
    assert "5 of 5 looked at" in done and "data-carry-on" not in done
    assert set(Recipient.objects.values_list("state", flat=True)) == {"discarded"}
    assert entry.action in operator.get(reverse("admin:sending_bulkact_history", args=(act.pk,))).content.decode()


def test_retry_in_bulk_releases_only_when_asked_and_can_be_stopped(operator, tenant):
    queue.waiting(tenant, "a@slow.test", holds=Hold.UNDELIVERABLE, due_at=timezone.now() + timedelta(hours=1))
    act = confirmed(operator, "retry", "state__exact=waiting")
    report = operator.post(reverse("admin:sending_bulk_go_on", args=(act.pk,)), follow=True).content.decode()
    assert "left alone: held" in report
    act = confirmed(operator, "retry", "holds=any", release="on")
    assert operator.post(reverse("admin:sending_bulk_stop", args=(act.pk,))).status_code == 302
    act.refresh_from_db()
    assert act.stopped and act.release and Recipient.objects.get().holds
    operator.post(reverse("admin:sending_bulk_go_on", args=(act.pk,)))
    assert Recipient.objects.get().holds, "what was stopped stays stopped"


def test_what_came_after_the_count_was_read_is_left_alone(operator, tenant):
    queue.waiting(tenant, "a@slow.test")
    url = f"{RECIPIENTS}bulk/discard/?hop=slow.test"
    form = operator.get(url).context["form"]
    late = queue.waiting(tenant, "b@slow.test")
    data = {"upto": form["upto"].value(), "asked_at": form["asked_at"].value(), "reason": "x"}
    assert operator.post(url, data).status_code == 302
    act = BulkAct.objects.get()
    operator.post(reverse("admin:sending_bulk_go_on", args=(act.pk,)))
    assert act.asked == 1 and list(Recipient.objects.filter(state="waiting")) == [late]


@pytest.mark.parametrize("narrower", [
    "original=a%40slow.test", "tries__gt=4", "next_hop=slow.test", "recipient_tenant=3", "state__exact=delivered",
])
def test_no_act_is_offered_on_more_than_what_the_list_shows(operator, tenant, narrower):
    message = queue.message(tenant)
    for name in ("a", "b"):
        queue.recipient(message, f"{name}@slow.test", state="waiting", last_reply="")
    known = f"{RECIPIENTS}?state__exact=waiting&hop=&p=1&o=&recipient=slow.test"
    assert operator.get(known).context["selection"]["discard"]
    assert operator.get(f"{RECIPIENTS}?{narrower}&state__exact=waiting").context["selection"] is None


def test_the_report_of_an_act_on_a_domain_leads_to_what_waits_of_it(operator, tenant):
    queue.waiting(tenant, "a@partner.test", next_hop="relay.test:25", holds=Hold.SUSPENDED)
    queue.waiting(tenant, "b@other.test")
    act = bulk.step(bulk.ask("retry", Selection(domain="partner.test"), actor=None))
    page = operator.get(f"/admin/sending/bulkact/{act.pk}/change/").content.decode()
    url = re.search(r'href="([^"]*domain=partner.test[^"]*)"', page)[1].replace("&amp;", "&")
    shown = operator.get(url)
    assert shown.status_code == 200
    assert [str(row) for row in shown.context["cl"].result_list] == ["a@partner.test"]


def test_a_next_hop_that_is_an_address_leads_to_what_waits_for_it(operator, tenant):
    queue.waiting(tenant, "a@[IPv6:2001:db8::1]")
    queue.waiting(tenant, "b@slow.test")
    page = operator.get(f"{QUEUE}?q=IPv6").content.decode()
    url = re.search(r'href="([^"]*IPv6[^"]*)">\[IPv6', page)[1].replace("&amp;", "&")
    assert [str(row) for row in operator.get(url).context["cl"].result_list] == ["a@[IPv6:2001:db8::1]"]


def test_trying_one_recipient_says_when_it_stays_held_or_no_longer_waits(operator, tenant):
    held = queue.waiting(tenant, "a@slow.test", holds=Hold.SUSPENDED)
    sent = queue.recipient(queue.message(tenant), "b@slow.test")
    stuck = queue.waiting(tenant, "c@slow.test", holds=Hold.POISON)
    for row, words in (
        (held, "a@slow.test waits until its sender is resumed."),
        (sent, "b@slow.test no longer waits in the queue."),
        (stuck, "c@slow.test is tried in a moment."),
    ):
        answer = operator.post(f"{RECIPIENTS}{row.pk}/retry/", follow=True)
        assert words in answer.content.decode()
    assert list(Recipient.objects.order_by("pk").values_list("holds", flat=True)) == [Hold.SUSPENDED, 0, 0]


@pytest.mark.parametrize("odd", [
    "older=999999d", "older=999999d&state__exact=waiting", f"tenant__id__exact={'9' * 20}", "original__regex=(",
    "tenant__id__exact=%D9%A3",
])
def test_an_odd_filter_is_no_server_error(operator, tenant, odd):
    queue.waiting(tenant, "a@slow.test")
    assert operator.get(f"{RECIPIENTS}?{odd}", follow=True).status_code < 500
    assert operator.get(f"{RECIPIENTS}bulk/retry/?{odd}", follow=True).status_code < 500


def test_odd_acts_are_no_server_error(operator, tenant):
    queue.waiting(tenant, "a@slow.test")
    assert operator.get(f"{RECIPIENTS}bulk/explode/").status_code == 404
    for odd in ("state__exact=delivered", "older=x", "message=x"):
        answer = operator.get(f"{RECIPIENTS}bulk/retry/?{odd}")
        assert answer.status_code == 302 and answer.headers["Location"] == QUEUE
    url = f"{RECIPIENTS}bulk/retry/?hop=nowhere.test"
    assert "There are none" in text_of(operator, url)
    for data in ({}, {"upto": "x", "asked_at": "y"}, {"upto": 10**30, "asked_at": timezone.now().isoformat()}):
        assert operator.post(url, data).status_code == 200
    assert not BulkAct.objects.exists()


def test_a_tenant_s_account_acts_on_nothing_in_bulk(tenant):
    world.domain("demo.test", tenant)
    client = Client()
    client.force_login(operations.create_account(email="ann@else.test", password="an unusual password", actor=None))
    for url in (QUEUE, f"{RECIPIENTS}bulk/retry/?state__exact=waiting"):
        assert client.get(url).status_code == 302


# Where a message is


def page_of(message: Message) -> str:
    return reverse("admin:sending_message_change", args=(message.pk,))


def test_message_s_page_says_where_it_is_what_is_next_and_why_it_was_let_through(operator, tenant, mailbox):
    credential, _ = world.app_password(mailbox)
    message = queue.message(
        tenant, credential_id=credential.pk, credential_text='shop@demo.test, app password "web shop"',
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384", facts={"charged": [
            {"kind": "mailbox", "id": mailbox.pk, "name": "shop@demo.test", "window": "day", "used": 6905,
             "allowed": 10000},
            {"kind": "tenant", "id": tenant.pk, "name": "Demo", "window": "hour", "used": 12, "allowed": None}, "odd",
        ]},
    )
    queue.recipient(message, "billing@demo.test", resolved="shop@demo.test", next_hop="local", last_reply="")
    carl = queue.recipient(message, "carl@other.test", tries=1)
    queue.attempt(carl, "delivered", reply="250 2.0.0 OK 1xyz", duration_ms=1240)
    due = timezone.now() + timedelta(minutes=4, seconds=30)
    bob = queue.recipient(
        message, "bob@slow.test", state="waiting", due_at=due, tries=2, last_reply="451 4.7.1 Greylisted"
    )
    queue.attempt(bob, reply="421 busy")
    queue.attempt(bob)
    said = text_of(operator, page_of(message))
    assert "Invoice 4711 Delivered to 2 of 3" in said
    assert "Next: bob@slow.test is tried again in 4 min (try 3)." in said
    assert (
        "From shop@demo.test by shop@demo.test , app password “web shop” from 203.0.113.9 over TLS 1.3 ,"
        in said.replace("&#x27;", "'")
    )
    assert said.index("bob@slow.test waiting") < said.index("billing@demo.test delivered"), "what waits stands first"
    assert "leads to shop@demo.test" in said and "into the mailbox, before it was answered" in said
    assert "mx.elsewhere.test [198.51.100.7] · TLS 1.3 · 1.2 s · try 1" in said
    assert "1 earlier try" in said and "421 busy" in said
    assert "mailbox shop@demo.test, 24 hours 6,905 of 10,000" in said
    assert "tenant Demo, 1 hour 12, unlimited" in said
    page = operator.get(page_of(message)).content.decode()
    for model, pk in (
        ("mailboxes_mailbox", mailbox.pk), ("mailboxes_credential", credential.pk), ("tenants_tenant", tenant.pk),
        ("sending_recipient", bob.pk),
    ):
        assert f'href="{reverse(f"admin:{model}_change", args=(pk,))}"' in page


def one_that_waits(message: Message, **fields) -> Recipient:
    return queue.recipient(message, "a@slow.test", **{"state": "waiting", "last_reply": "", **fields})


@pytest.mark.parametrize(("states", "words"), [
    ("", "no recipients here any more"), ("d", "Delivered"), ("dd", "Delivered to all 2"),
    ("dw", "Delivered to 1 of 2"), ("df", "Delivered to 1 of 2"), ("w", "Not delivered yet"),
    ("wf", "Not delivered yet"), ("f", "Failed"), ("xx", "Given up"), ("fx", "Not delivered"),
])
def test_state_of_a_message_in_words(operator, tenant, states, words):
    message = queue.message(tenant)
    names = {"d": "delivered", "w": "waiting", "f": "failed", "x": "discarded"}
    for each in states:
        queue.recipient(message, "a@slow.test", state=names[each])
    assert f"Invoice 4711 {words} From" in text_of(operator, page_of(message))


def test_message_s_page_says_what_holds_it_and_what_is_on_its_way(operator, tenant):
    held = queue.message(tenant)
    one_that_waits(held, holds=Hold.SUSPENDED)
    said = text_of(operator, page_of(held))
    assert "Held: a@slow.test , because its sender is suspended. It goes when its sender is resumed." in said
    going = queue.message(tenant)
    one_that_waits(going, lease_until=timezone.now() + timedelta(minutes=1), lease_by="mx-1")
    one_that_waits(going, due_at=timezone.now() + timedelta(hours=1))
    said = text_of(operator, page_of(going))
    assert "Next: a@slow.test is being delivered just now." in said and "1 more waits." in said
    inbound = queue.message(None, reverse_path="", tls="", message_id="", subject="")
    said = text_of(operator, page_of(inbound))
    assert "(no subject) no recipients" in said and "the null path &lt;&gt; ) from 203.0.113.9 without TLS" in said
    assert "It came from elsewhere" in said


def test_message_is_tried_and_given_up_from_its_page(operator, tenant):
    message = queue.message(tenant)
    row = one_that_waits(message, due_at=timezone.now() + timedelta(hours=1))
    queue.recipient(message, "b@done.test")
    page = operator.get(page_of(message)).content.decode()
    retry, discard = (reverse(f"admin:sending_message_{name}", args=(message.pk,)) for name in ("retry", "discard"))
    assert f'action="{retry}"' in page and f'href="{discard}"' in page
    sent = {"csrfmiddlewaretoken": "as a browser does"}
    said = operator.post(retry, sent, follow=True).content.decode()
    row.refresh_from_db()
    assert "1 recipient is tried in a moment." in said and row.due_at <= timezone.now()
    assert list(operator.post(discard, {"reason": ""}).context["form"].errors) == ["reason"]
    said = operator.post(discard, {"reason": "as asked"}, follow=True).content.decode()
    row.refresh_from_db()
    assert "1 recipient is given up." in said and row.state == "discarded"
    entry = AuditEntry.objects.get(action="queue.discarded")
    assert (entry.tenant, entry.reason, entry.after) == (tenant, "as asked", {"recipients": 1})
    said = operator.get(page_of(message)).content.decode()
    assert retry not in said, "what is at its end is offered nothing"
    assert "Nothing of it waits any more." in operator.post(retry, sent).content.decode()


def test_what_is_on_its_way_or_held_for_a_suspended_sender_is_left_alone(operator, tenant):
    going, held = queue.message(tenant), queue.message(tenant)
    one_that_waits(going, lease_until=timezone.now() + timedelta(minutes=1), lease_by="mx-1")
    one_that_waits(held, holds=Hold.SUSPENDED)
    for message, name, sentence in (
        (going, "retry", "It is being delivered just now."), (going, "discard", "It is being delivered just now"),
        (held, "retry", "It waits until its sender is resumed."),
    ):
        answer = operator.post(reverse(f"admin:sending_message_{name}", args=(message.pk,)), {"reason": "x"})
        assert answer.status_code == 200, (sentence, answer.headers)
        assert sentence in answer.content.decode(), sentence
    assert set(Recipient.objects.values_list("state", "holds")) == {("waiting", 0), ("waiting", Hold.SUSPENDED)}
    assert not AuditEntry.objects.filter(action__startswith="queue").exists()


def test_message_s_page_is_bounded_in_what_it_asks_and_shows(operator, support, tenant, mailbox):
    credential, _ = world.app_password(mailbox)
    counts, pages = [], []
    for number in (2, 120):
        message = queue.message(tenant, credential_id=credential.pk)
        for n in range(number):
            local = {"next_hop": "local", "resolved": "shop@demo.test"} if n % 2 else {}
            row = queue.recipient(message, f"r{n}@slow.test", state=("waiting", "delivered")[n % 2], **local)
            if n < 5:
                queue.attempt(row)
        operator.get(page_of(message))
        counts.append(number_of_queries(operator, page_of(message)))
        pages.append(operator.get(page_of(message)).content.decode())
    assert counts[0] == counts[1] <= 15
    assert "more recipients" not in pages[0]
    assert f'href="{RECIPIENTS}?message={message.queue_id}">20 more recipients</a>' in pages[1]
    assert pages[1].count('class="ph-leg"') == 100
    listed = operator.get(f"{RECIPIENTS}?message={message.queue_id}")
    assert len(listed.context["cl"].result_list) == PAGE and "Recipients of the message" in listed.content.decode()
    assert "Try now" not in support.get(page_of(message)).content.decode()


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}{% now 'Y' %}", "a\u202eb", "x" * 190,
])
def test_what_strangers_write_is_shown_harmless(operator, tenant, text):
    charged = {"kind": text, "name": text, "window": text, "used": 1, "allowed": 2}
    message = queue.message(
        tenant, subject=text, reverse_path=text, message_id=text, header_from=text, client_name=text,
        credential_text=text, facts={"charged": [charged]},
    )
    row = queue.recipient(
        message, text, resolved=f"x{text}", next_hop=text, state="waiting", last_reply=text, tries=1
    )
    queue.attempt(row, host=text, reply=text)
    for url in (
        page_of(message), reverse("admin:sending_recipient_change", args=(row.pk,)), QUEUE,
        reverse("admin:sending_message_discard", args=(message.pk,)),
    ):
        answer = operator.get(url)
        assert answer.status_code == 200
        content = answer.content.decode()
        assert "<script>alert(1)" not in content and "<img src=x" not in content and ">49<" not in content
    found = operator.get(f"{RECIPIENTS}bulk/discard/", {"sender": text, "hop": text})
    assert found.status_code in (200, 302) and b"<script>alert(1)" not in found.content
