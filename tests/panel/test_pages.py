"""Every page of the provider's admin asks a bounded number of questions, whatever the number of rows.

The pages are found and the rows are made as tests/bench/panel does it, which measures times at size.
"""

import re

import pytest
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Count
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from unfold.templatetags import unfold_list

from panel.domains.models import Domain
from panel.mailboxes.models import Mailbox
from panel.sending.models import Message
from panel.tenants import pages as lists
from panel.tenants.models import Plan, Tenant
from panel.tenants.rows import written
from panel.tenants.scoped_admin import MOST_KEEPING, PAGE
from tests.bench import filling
from tests.bench.pages import Page, pages, without_repeats
from tests.bench.panel import MOST_QUERIES, an_owner

pytestmark = pytest.mark.django_db


@pytest.fixture
def client() -> Client:
    client = Client()
    client.force_login(an_owner())
    return client


def questions(client: Client, some: list[Page]) -> dict[str, int]:
    """How many queries each page takes."""
    found = {}
    for page in some:
        with CaptureQueriesContext(connection) as asked:
            status = client.get(page.urls[0]).status_code
        assert status < 400, (page, status)
        found[page.name] = len(asked)
    return found


def all_pages() -> list[Page]:
    return without_repeats(pages(an_owner(), thorough=False))


@pytest.mark.once("postgresql")
def test_no_page_asks_more_than_fifteen_questions_or_more_of_them_for_more_rows(client):
    filling.fill(filling.Size(tenants=3, mailboxes=15, messages=60))
    ContentType.objects.get_for_models(*admin.site._registry)  # asked for once in a process, as is the next
    assert connection.features.supports_json_field
    few = questions(client, [page for page in all_pages() if page.name.endswith((" list", " change", " history"))])
    filling.fill(filling.Size(tenants=20, mailboxes=200, messages=500))
    many = questions(client, [page for page in all_pages() if page.name != "/admin/"])  # test_admin_generated has it
    assert {name: count for name, count in many.items() if count > MOST_QUERIES} == {}
    # One more of a list that no longer fits on one page: for the ids of that page.
    assert {name: (count, many[name]) for name, count in few.items() if many[name] - count not in (0, 1)} == {}
    assert len(many) > 100


def test_a_deep_page_goes_on_where_the_one_before_ended(client):
    filling.fill(filling.Size(tenants=2, mailboxes=120, messages=130))
    for model, of in (("mailboxes/mailbox", Mailbox), ("sending/message", Message)):
        shown = []
        for number in range(1, of.objects.count() // PAGE + 2):
            shown += [row.pk for row in client.get(f"/admin/{model}/?p={number}").context["cl"].result_list]
        assert len(shown) == len(set(shown)) == of.objects.count()
    assert shown == sorted(shown, reverse=True)


@pytest.mark.once("postgresql")
def test_the_side_bar_lights_the_entry_of_each_page(client):
    for path, entry in (
        ("sending/recipient/queue/", "Queue"), ("sending/recipient/", "Recipients"), ("sending/message/", "Messages"),
        ("tenants/tenant/add/", "Tenants"), ("sending/recipient/", "Recipients"), ("search/", None),
    ):
        content = client.get(f"/admin/{path}").content.decode()
        lit = re.findall(r'<a href="[^"]*" class="[^"]* active">.*?<span>([^<]*)</span>', content, re.DOTALL)
        assert lit == [entry] * (entry is not None), path


@pytest.mark.once("postgresql")
@pytest.mark.parametrize("query", ["", "?status__exact=0&q=e", "?_popup=1"])
def test_rows_are_written_as_unfold_writes_them(client, query):
    filling.fill(filling.Size(tenants=3, mailboxes=8, messages=20))
    with transaction.atomic():
        Tenant.objects.filter(pk=Tenant.objects.latest("pk").pk).update(name='<b onclick="x">{{ 1 }}\u202e & Co')
    seen = 0
    for model, of in admin.site._registry.items():
        for name in ("list_editable", "list_sections", "actions_row", "ordering_field"):
            assert not getattr(of, name, None), (model, name)  # what our own rows know nothing of
        answer = client.get(reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist") + query)
        if answer.status_code != 200:  # a filter that this list doesn't have
            continue
        changes = answer.context["cl"]
        theirs = ["".join(unfold_list.items_for_result(changes, row, None)) for row in changes.result_list]
        ours = written(changes, [header["text"] for header in unfold_list.result_headers(changes)]).split("</tbody>")
        assert len(ours) == len(theirs) + 1
        for written_here, row in zip(ours, theirs, strict=False):
            assert row in written_here, model
        seen += len(theirs)
    assert seen > 3


def test_a_long_list_is_not_counted_and_leads_on(client, monkeypatch):
    monkeypatch.setattr(lists, "COUNTED", 60)
    filling.fill(filling.Size(tenants=130, mailboxes=1, messages=1))
    pages, rest = divmod(Tenant.objects.count(), PAGE)
    first, last = (client.get(f"/admin/tenants/tenant/?p={number}") for number in (1, pages + 1))
    assert "more than 60 tenants" in first.content.decode()
    assert "p=2" in first.content.decode()
    assert len(last.context["cl"].result_list) == rest > 0
    assert f"p={pages + 2}" not in last.content.decode()
    # Nobody knows how many they are, so nothing offers to act on all of them.
    assert "Select all" not in first.content.decode()
    beyond = client.get("/admin/tenants/tenant/?p=9")
    assert beyond.status_code == 200
    assert not beyond.context["cl"].result_list


@pytest.mark.once("postgresql")
def test_the_page_that_deletes_names_a_few_of_what_keeps_it(client):
    filling.fill(filling.Size(tenants=2, mailboxes=40, messages=1))
    largest = Domain.objects.annotate(count=Count("addresses")).latest("count")
    client.post(url := f"/admin/domains/domain/{largest.pk}/delete/", {"post": "yes"})
    said = client.get(url).content.decode()
    assert said.count("Address: ") == MOST_KEEPING < largest.count  # type: ignore[attr-defined]
    assert "… and more" in said
    assert Domain.objects.filter(pk=largest.pk).exists()


def test_a_list_says_how_many_match_and_leads_back_to_all(client):
    filling.fill(filling.Size(tenants=60, mailboxes=1, messages=1))
    assert "60 tenants" in " ".join(client.get("/admin/tenants/tenant/").content.decode().split())
    found = client.get("/admin/tenants/tenant/?q=Tenant+2").content.decode()
    assert "Show all" in found


def test_the_numbers_of_a_list_are_those_of_its_rows(client):
    filling.fill(filling.Size(tenants=3, mailboxes=20, messages=1))
    for tenant in client.get("/admin/tenants/tenant/").context["cl"].result_list:
        assert (tenant.domains_count, tenant.mailboxes_count) == (
            tenant.domains.count(), tenant.addresses.filter(mailbox__isnull=False).count()
        )


@pytest.mark.parametrize("query", ["", "&o=1", "&o=-3", "&status__exact=0"])
def test_the_links_of_a_long_list_lead_through_all_of_it_and_back(client, monkeypatch, query):
    monkeypatch.setattr(lists, "COUNTED", 60)
    filling.fill(filling.Size(tenants=130, mailboxes=140, messages=1))
    for model in ("tenants/tenant", "mailboxes/mailbox"):
        there, back = [], []
        page = client.get(f"/admin/{model}/?p=1{query}").context["cl"]
        while True:
            there.append([row.pk for row in page.result_list])
            if not page.paginator.leads_on:
                break
            page = client.get(f"/admin/{model}/{page.link_on()}").context["cl"]
        while page.page_num > 1:
            page = client.get(f"/admin/{model}/{page.link_back()}").context["cl"]
            back.insert(0, [row.pk for row in page.result_list])
        assert len(there) > 2 and {len(each) for each in there[:-1]} == {PAGE}
        assert back == there[:-1]
        assert len({pk for each in there for pk in each}) == sum(map(len, there)) > 100


@pytest.mark.parametrize("order", ["2", "-2", "3", "-3"])
def test_the_links_lead_to_the_rows_that_have_no_value_in_the_order_s_column(client, order):
    Plan.objects.bulk_create(
        Plan(name=f"Plan {number}", domains=number if number % 3 else None, mailboxes=number % 2 or None)
        for number in range(130)
    )
    page = client.get(f"/admin/tenants/plan/?o={order}").context["cl"]
    shown = [row.pk for row in page.result_list]
    while page.paginator.leads_on:
        page = client.get(f"/admin/tenants/plan/{page.link_on()}").context["cl"]
        shown += [row.pk for row in page.result_list]
    assert sorted(shown) == sorted(Plan.objects.values_list("pk", flat=True))
    there = shown[-len(page.result_list):]
    while page.page_num > 1:
        page = client.get(f"/admin/tenants/plan/{page.link_back()}").context["cl"]
        there = [row.pk for row in page.result_list] + there
    assert there == shown


@pytest.mark.parametrize("odd", ["x", "-1", "0", "9" * 19, "9" * 30, "\u0661", ""])
def test_an_odd_row_to_go_on_from_is_no_server_error(client, odd):
    filling.fill(filling.Size(tenants=60, mailboxes=1, messages=1))
    for name in ("after", "before"):
        assert client.get("/admin/tenants/tenant/", {"p": 2, name: odd}).status_code == 200


BIG, NUL = "9" * 20, "\x00"


@pytest.mark.parametrize(("page", "odd"), [
    ("tenants/tenant/", {"name": NUL}), ("tenants/tenant/", {"created_at__year": "9" * 11}),
    ("tenants/tenant/", {"plan": BIG}), ("mailboxes/loginevent/", {"outcome__exact": NUL}),
    ("mailboxes/loginevent/", {"ip": NUL}), ("sending/recipient/", {"id__range": "1"}),
    ("sending/recipient/", {"id__in": BIG}), ("sending/recipient/", {"state__exact": NUL}),
    ("sending/message/", {"facts__contains": "x"}),
    ("sending/sendinglimit/add/", {"tenant": NUL}), ("sending/sendinglimit/add/", {"tenant": BIG}),
    ("sending/sendinglimit/add/", {"tenant": "x"}), ("domains/domain/add/", {"tenant": BIG, "name": NUL}),
    ("mailboxes/mailbox/add/", {"domain": "x"}), ("mailboxes/mailbox/add/", {"domain": BIG}),
    ("mailboxes/credential/add/", {"mailbox": BIG}), ("tenants/membership/add/", {"user": "x", "tenant": BIG}),
    ("autocomplete/", {"app_label": "sending", "model_name": "sendinglimit", "field_name": "tenant", "term": NUL}),
    ("autocomplete/", {"app_label": "sending", "model_name": "sendinglimit", "field_name": "domain", "term": NUL}),
    ("autocomplete/", {"app_label": "sending", "model_name": "sendinglimit", "field_name": "mailbox", "term": NUL}),
])
def test_odd_values_in_an_address_are_no_server_error(client, page, odd):
    filling.fill(filling.Size(tenants=1, mailboxes=1, messages=1))
    assert client.get(f"/admin/{page}", odd, follow=True).status_code < 500


def test_a_form_is_filled_in_by_its_address(client):
    filling.fill(filling.Size(tenants=1, mailboxes=1, messages=1))
    tenant = Tenant.objects.earliest("pk")
    page = client.get("/admin/domains/domain/add/", {"tenant": tenant.pk, "name": "new.test"})
    assert page.context["adminform"].form.initial == {"tenant": str(tenant.pk), "name": "new.test"}
