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
from panel.sending.models import BulkAct, Hold, Recipient
from panel.tenants.models import AuditEntry
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
    assert "slow.test 1 held its sender is suspended 4 just now" in said
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
        *(reverse(f"admin:sending_bulkact_{name}", args=(act.pk,)) for name in ("go_on", "stop")),
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
    go_on = reverse("admin:sending_bulkact_go_on", args=(act.pk,))
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
    report = operator.post(reverse("admin:sending_bulkact_go_on", args=(act.pk,)), follow=True).content.decode()
    assert "left alone: held" in report
    act = confirmed(operator, "retry", "holds=any", release="on")
    assert operator.post(reverse("admin:sending_bulkact_stop", args=(act.pk,))).status_code == 302
    act.refresh_from_db()
    assert act.stopped and act.release and Recipient.objects.get().holds
    operator.post(reverse("admin:sending_bulkact_go_on", args=(act.pk,)))
    assert Recipient.objects.get().holds, "what was stopped stays stopped"


def test_what_came_after_the_count_was_read_is_left_alone(operator, tenant):
    queue.waiting(tenant, "a@slow.test")
    url = f"{RECIPIENTS}bulk/discard/?hop=slow.test"
    form = operator.get(url).context["form"]
    late = queue.waiting(tenant, "b@slow.test")
    data = {"upto": form["upto"].value(), "asked_at": form["asked_at"].value(), "reason": "x"}
    assert operator.post(url, data).status_code == 302
    act = BulkAct.objects.get()
    operator.post(reverse("admin:sending_bulkact_go_on", args=(act.pk,)))
    assert act.asked == 1 and list(Recipient.objects.filter(state="waiting")) == [late]


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
