"""A reseller's customers: which plans it may give, how many, who runs them, and whose they are."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from panel.operations import services as operations
from panel.operations.customers import change_customer, create_customer
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, Invitation, Membership, Plan, Tenant, User
from tests.support import world

pytestmark = pytest.mark.django_db


@pytest.fixture
def north():
    """A reseller of two customers at most, with 100 mailboxes each."""
    plan = tenants.create_plan(name="Reseller", mailboxes=100, domains=10, customers=2, actor=None)
    return Tenant.objects.create(name="North", plan=plan)


@pytest.fixture
def small():
    return tenants.create_plan(name="Small", for_customers=True, **SMALL, actor=None)


SMALL = {"mailboxes": 10, "domains": 1, "customers": 0}


def browser(tenant, role="owner", name="ann") -> Client:
    account, _made = User.objects.get_or_create(
        kind=User.Kind.PANEL, email=f"{name}@letters.test", defaults={"password": "!"}
    )
    tenants.create_membership(user=account, tenant=tenant, role=role, actor=None)
    client = Client()
    client.force_login(account)
    return client


def test_a_customer_is_made_with_its_owner_on_a_plan_that_may_be_given(north, small):
    for name, more in {"Large": {"mailboxes": 101}, "Unlimited": {"mailboxes": None}, "Not for them": {}}.items():
        tenants.create_plan(
            name=name, for_customers=name != "Not for them", **{**SMALL, **more}, actor=None
        )
    client, url = browser(north), f"/t/{north.pk}/customers/"
    assert "No customers yet" in client.get(url).content.decode()
    assert [str(plan) for plan in client.get(f"{url}add/").context["form"].fields["plan"].queryset] == ["Small"]
    refused = client.post(
        f"{url}add/", {"name": "Acme", "plan": Plan.objects.get(name="Large").pk, "owner": "boss@acme.example"}
    )
    assert refused.status_code == 200 and refused.context["form"].errors["plan"]
    with pytest.raises(ServiceError, match="plans that are offered"):
        create_customer(
            north, name="Acme", plan=Plan.objects.get(name="Not for them"), owner="x@y.example", link=str,
            actor=User.objects.get(email="ann@letters.test"),
        )
    # Somebody else's customer has that name: nothing tells.
    world.tenant("Acme", parent=world.tenant("South"))
    made = client.post(f"{url}add/", {"name": "Acme", "plan": small.pk, "owner": "boss@acme.example"}, follow=True)
    assert "boss@acme.example is invited as its owner" in made.content.decode()
    acme = Tenant.objects.get(name="Acme", parent=north)
    assert (acme.plan, Invitation.objects.get(tenant=acme).role) == (small, "owner")
    assert Invitation.objects.get(tenant=acme).email == "boss@acme.example"
    assert not Membership.objects.filter(tenant=acme).exists(), "not before it is accepted"
    entries = AuditEntry.objects.filter(tenant=acme).order_by("pk").values_list("action", flat=True)
    assert list(entries) == ["tenant.created", "invitation.sent"]
    again = client.post(f"{url}add/", {"name": "Acme", "plan": small.pk, "owner": "boss@acme.example"})
    assert "There is a tenant Acme already" in again.content.decode()
    client.post(f"{url}add/", {"name": "Two", "plan": small.pk, "owner": "boss@acme.example"})
    third = client.post(f"{url}add/", {"name": "Three", "plan": small.pk, "owner": "new@acme.example"})
    assert "allows 2 customers; North has 2" in third.content.decode()
    assert not Invitation.objects.filter(email="new@acme.example").exists(), "nothing is made where not all of it is"


@pytest.mark.skipif(
    connection.vendor != "postgresql",
    reason="about the order of PostgreSQL's locks; SQLite has one lock, so no order",
)
def test_making_one_waits_for_whoever_moves_the_reseller_before_it_locks_it(north, small):
    boss = User.objects.create(kind=User.Kind.PANEL, email="boss@letters.test", password="!")
    tenants.create_membership(user=boss, tenant=north, role="owner", actor=None)
    with CaptureQueriesContext(connection) as asked:
        create_customer(north, name="Acme", plan=small, owner="x@acme.example", link=str, actor=boss)
    locks = [each["sql"] for each in asked if "pg_advisory" in each["sql"] or "FOR NO KEY UPDATE" in each["sql"]]
    assert "pg_advisory" in locks[0] and any("tenants_tenant" in each for each in locks[1:])


def test_who_has_no_room_for_customers_makes_none(small):
    tenant = world.tenant("Demo")
    client = browser(tenant)
    page = client.get(f"/t/{tenant.pk}/customers/").content.decode()
    assert "Your plan has no room" in page and f'href="/t/{tenant.pk}/customers/"' not in page, "nor is it in the side"
    refused = client.post(f"/t/{tenant.pk}/customers/add/", {"name": "X", "plan": small.pk, "owner": "a@b.example"})
    assert refused.context["form"].errors["__all__" if "plan" not in refused.context["form"].errors else "plan"]
    assert not Tenant.objects.filter(parent=tenant).exists()


def test_a_customer_is_stopped_and_let_go_on_by_its_reseller_alone(north, small):
    acme = world.tenant("Acme", parent=north)
    reseller, own = browser(north), browser(acme, name="boss")
    admin = browser(north, role="admin", name="admin")
    url = f"/t/{north.pk}/customers/{acme.pk}/"
    asked = admin.post(f"{url}suspend/", {"level": "all", "reason": ""})
    assert asked.status_code == 200 and asked.context["form"].errors["reason"]
    assert admin.post(f"{url}suspend/", {"level": "all", "reason": "unpaid"})["Location"] == url
    assert "unpaid" in reseller.get(f"/t/{north.pk}/customers/").content.decode()
    assert own.get(f"/t/{acme.pk}/").status_code == 200 and own.get(f"/t/{acme.pk}/settings/close/").status_code == 403
    reseller.post(f"{url}resume/", {"reason": "paid"})
    acme.refresh_from_db()
    assert acme.status == 0
    assert admin.post(f"{url}close/", {"x": "1"}).status_code == 403
    reseller.post(f"{url}close/", {"reason": "gone"})
    acme.refresh_from_db()
    assert acme.grace_ends_at
    reseller.post(f"{url}restore/", {"x": "1"})
    acme.refresh_from_db()
    assert (acme.status, acme.grace_ends_at) == (0, None)
    # What the provider stopped the reseller neither resumes nor closes.
    operations.suspend(acme, reason="abuse", actor=None)
    for act in ("resume", "close"):
        assert "suspended by your provider" in reseller.post(f"{url}{act}/", {"reason": "x"}).content.decode(), act
    page = reseller.get(url).content.decode()
    assert "ask your provider" in page and f"{url}resume/" not in page and f"{url}close/" not in page


def test_its_reseller_gives_it_another_name_and_another_of_the_plans_that_it_may_give(north, small):
    acme = Tenant.objects.create(name="Acme", parent=north, plan=small)
    south = world.tenant("South")
    medium, large = [
        tenants.create_plan(name=name, for_customers=True, **{**SMALL, "mailboxes": most}, actor=None)
        for name, most in (("Medium", 20), ("Large", 101))
    ]
    client, url = browser(north), f"/t/{north.pk}/customers/{acme.pk}/"
    assert f"{url}change/" in client.get(url).content.decode()
    shown = client.get(f"{url}change/")
    assert [str(each) for each in shown.context["form"].fields["plan"].queryset] == ["Medium", "Small"]
    assert f'name="shown" value="{small.pk}"' in shown.content.decode()
    assert "Small (Domains 1 · Mailboxes 10 · Storage unlimited)" in shown.content.decode()

    def post(name, plan, was=small):
        return client.post(f"{url}change/", {"name": name, "plan": plan.pk, "shown": was.pk})

    def stored():
        acme.refresh_from_db()
        return acme.name, acme.plan

    assert post("Acme", large).context["form"].errors["plan"], "above its own plan"
    world.tenant("Two", parent=north)
    refused = post("Two", medium)
    assert "There is a tenant Two already" in refused.content.decode() and stored() == ("Acme", small), "all or nothing"
    assert post("South", medium)["Location"] == url and stored() == ("South", medium), "a stranger's name tells nothing"
    entry = AuditEntry.objects.filter(tenant=acme).latest("pk")
    assert (entry.action, str(entry.actor), entry.after["name"]) == ("tenant.changed", "ann@letters.test", "South")
    # By a page from before that: what it didn't choose stays, and what it chose is asked again.
    assert post("Acme", small).status_code == 302 and stored() == ("Acme", medium)
    again = tenants.create_plan(name="Other", for_customers=True, **SMALL, actor=None)
    assert "in the meantime" in post("Acme", again).content.decode() and stored() == ("Acme", medium)
    # A plan that only the provider gives it alone takes away; the name is still the reseller's to change.
    tenants.change_tenant(acme, plan=large, actor=None)
    assert "Your provider gave it this plan" in client.get(f"{url}change/").content.decode()
    assert post("Acme & Co", medium, was=large).status_code == 302 and stored() == ("Acme & Co", large)
    with pytest.raises(ServiceError, match="plans that are offered"):
        change_customer(
            north, acme, name="X", plan=medium, shown=large.pk, actor=User.objects.get(email="ann@letters.test")
        )
    operations.suspend(acme, reason="abuse", actor=None)
    assert "suspended by your provider" in post("X", large, was=large).content.decode()
    assert client.post(f"/t/{north.pk}/customers/{south.pk}/change/", {"name": "X"}).status_code == 404


def test_the_list_is_of_the_own_customers_and_theirs_searched_and_paged(north):
    acme = world.tenant("Acme", parent=north)
    world.tenant("Acme's own", parent=acme)
    stranger = world.tenant("Acme abroad", parent=world.tenant("South"))
    for number in range(35):
        world.tenant(f"Customer {number:02}", parent=north)
    client, url = browser(north), f"/t/{north.pk}/customers/"
    first = client.get(url)
    names = [str(line.tenant) for line in first.context["lines"]]
    assert names[:3] == ["Acme", "Acme's own", "Customer 00"] and len(names) == 25
    rest = client.get(f"{url}?after={first.context['last']}")
    assert [str(line.tenant) for line in rest.context["lines"]] == [f"Customer {number}" for number in range(23, 35)]
    found = client.get(f"{url}?q=acme").content.decode()
    assert "own</a>" in found and "abroad" not in found and "under Acme" in found
    assert "begins with “nobody”" in client.get(f"{url}?q=nobody").content.decode()
    assert client.get(f"{url}?after={stranger.pk}").context["lines"][0].tenant == acme, "whose row tells nothing"
    for act in ("", "suspend/", "resume/", "close/", "restore/"):
        assert client.get(f"{url}{stranger.pk}/{act}").status_code == 404, act
        assert client.post(f"{url}{stranger.pk}/{act}", {"reason": "x", "level": "all"}).status_code in (404, 405), act
