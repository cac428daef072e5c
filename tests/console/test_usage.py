"""Usage and limits: what is shown is what the counters say, and the export runs nothing."""

import csv
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone, translation

from panel.rules.limits import Kind, Rings
from panel.sending.models import Counter
from panel.tenants import services as tenants
from panel.tenants.models import User
from tests.support import world

pytestmark = pytest.mark.django_db

DAY_S = 86400


def charge(kind: Kind, subject: int, *charges: tuple[int, float]) -> None:
    """Recipients, seconds ago."""
    rings, now_s = Rings(), timezone.now().timestamp()
    for recipients, ago_s in charges:
        rings.charge(recipients, now_s - ago_s)
    Counter.objects.update_or_create(kind=kind, subject=subject, defaults={"rings": rings.pack()})


@pytest.fixture
def acme():
    return world.tenant("=Acme")


@pytest.fixture
def client(acme) -> Client:
    account = User.objects.create(kind=User.Kind.PANEL, email="ann@letters.test", password="!")
    tenants.create_membership(user=account, tenant=acme, role="viewer", actor=None)
    client = Client()
    client.force_login(account)
    return client


def test_usage_is_what_the_counters_say_and_names_no_other_tenant(
    client, acme, django_assert_max_num_queries, monkeypatch
):
    shop = world.domain("shop.test", acme)
    beta = world.tenant("Beta")
    world.domain("beta.test", beta)
    ann, bob = world.mailbox("ann@shop.test"), world.mailbox("bob@beta.test")
    world.limit(acme, day=1000)
    world.limit(shop, day=100)
    charge(Kind.TENANT, acme.pk, (321, 3 * DAY_S), (90, 600))
    charge(Kind.MAILBOX, ann.pk, (300, 3 * DAY_S), (90, 600))
    charge(Kind.DOMAIN, shop.pk, (90, 600))
    charge(Kind.MAILBOX, bob.pk, (777, 600))
    charge(Kind.TENANT, beta.pk, (777, 600))
    client.get(f"/t/{acme.pk}/usage/")  # Django asks SQLite once a process what it can do
    with django_assert_max_num_queries(15):
        page = client.get(f"/t/{acme.pk}/usage/").content.decode().replace("<wbr>", "")
    assert "shop.test reaches its limit about" in page and "90 of 1,000" in page and "90 of 100" in page
    assert page.count('<rect class="bar') == 30 and "<summary" in page and ">321<" in page
    assert "ann@shop.test" in page and ">390<" in page and ">21<" in page, "the rest, forwarded by aliases"
    assert "777" not in page and "beta" not in page.lower() and "style=" not in page
    for at in range(20):
        charge(Kind.MAILBOX, world.mailbox(f"m{at}@shop.test").pk, (1, 600))
    with django_assert_max_num_queries(15):
        client.get(f"/t/{acme.pk}/usage/")
    monkeypatch.setattr("panel.sending.usage.MOST_COUNTED", 2)
    page = client.get(f"/t/{acme.pk}/usage/").content.decode().replace("<wbr>", "")
    assert "Of your first" in page and "ann@shop.test" in page and "m0@shop.test" in page
    assert page.count("@shop.test</a>") == 2 and "Forwarded by aliases" not in page
    sheet = client.get(f"/t/{acme.pk}/usage/export/")
    assert sheet["Content-Disposition"].startswith("attachment") and sheet["Content-Type"].startswith("text/csv")
    rows = list(csv.reader(sheet.content.decode().splitlines()))
    assert rows[0] == ["day", "of", "name", "recipients"] and "777" not in sheet.content.decode()
    assert [row[1:] for row in rows if row[2] == "ann@shop.test"] == [
        ["mailbox", "ann@shop.test", "300"], ["mailbox", "ann@shop.test", "90"]
    ]
    assert {row[2] for row in rows if row[1] == "tenant"} == {"'=Acme"}, "no formula"


def test_usage_before_anything_was_sent_and_when_all_of_it_is(client, acme):
    page = client.get(f"/t/{acme.pk}/usage/").content.decode()
    assert "Nobody sent anything" in page and "What happens when I reach it?" in page
    world.limit(acme, day=50)
    assert "50 recipients fit into 24 hours" in client.get(f"/t/{acme.pk}/usage/").content.decode()
    charge(Kind.TENANT, acme.pk, (50, 600))
    assert "=Acme has reached its limit." in client.get(f"/t/{acme.pk}/usage/").content.decode()


def test_the_home_shows_the_last_24_hours_with_a_label_and_a_table_and_nothing_where_nothing_was(
    client, acme, django_assert_max_num_queries
):
    world.domain("shop.test", acme)
    world.mailbox("ann@shop.test")
    path = f"/t/{acme.pk}/"
    assert '<rect class="bar' not in client.get(path).content.decode()
    charge(Kind.TENANT, acme.pk, (777, 30 * 3600), (40, 5 * 3600), (9, 0))
    with django_assert_max_num_queries(15):
        page = client.get(path).content.decode()
    five_ago = f"{timezone.now() - timedelta(hours=5):%H}:00"
    assert page.count('<rect class="bar') == 24 and f"<title>{five_ago} 40</title>" in page and "777" not in page
    assert f"49 in all, most at {five_ago} with 40, 9 in the present one" in page and page.count(">40</td>") == 1
    assert "style=" not in page
    Counter.objects.filter(kind=Kind.TENANT, subject=acme.pk).update(rings=b"?")
    assert '<rect class="bar' not in client.get(path).content.decode()


@pytest.mark.once("postgresql")
@pytest.mark.parametrize(("language", "whole"), [("en", "as a whole"), ("ja", "全体では")])
def test_a_tenant_that_is_full_first_is_told_of_once(client, acme, language, whole):
    world.limit(acme, day=100)
    charge(Kind.TENANT, acme.pk, (90, 600))
    with translation.override("en"):  # which the thread has again afterwards
        page = client.get(f"/t/{acme.pk}/usage/", headers={"accept-language": language}).content.decode()
    assert page.count("<strong>=Acme ") + page.count("<strong>直近") == 1 and whole not in page
