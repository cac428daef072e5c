"""A tenant's people: who may name whom, the last owner, and what a suspended tenant may still do."""

import pytest
from django.test import Client

from panel.operations import password_reset
from panel.operations import services as operations
from panel.sending.models import Message
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, Membership, PasswordReset, User
from tests.support import world

pytestmark = pytest.mark.django_db


@pytest.fixture
def acme():
    return world.tenant("Acme")


def account(name: str) -> User:
    return User.objects.create(kind=User.Kind.PANEL, email=f"{name}@letters.test", password="!")


def member(tenant, name: str, role: str) -> Membership:
    return tenants.create_membership(user=account(name), tenant=tenant, role=role, actor=None)


def browser(of: Membership) -> Client:
    client = Client()
    client.force_login(of.user)
    return client


def test_an_account_and_an_address_without_one_are_added_and_answered_alike(acme):
    owner = member(acme, "ann", "owner")
    User.objects.filter(pk=account("bob").pk).update(name="Robert Foreign")
    said = []
    for email in (" Bob@letters.test ", "new@letters.test"):
        page = browser(owner).post(f"/t/{acme.pk}/people/add/", {"email": email, "role": "admin"}, follow=True)
        said.append(page.content.decode().split("is a member now")[1][:120])
        assert "Robert Foreign" not in page.content.decode(), "nor whose address it is"
    assert said[0] == said[1]
    assert set(acme.memberships.filter(role="admin").values_list("user__email", flat=True)) == {
        "bob@letters.test", "new@letters.test",
    }
    asked = PasswordReset.objects.exclude(user=None).get()
    assert asked.user.email == "new@letters.test", "a link to choose a password"
    assert Message.objects.count() == 1
    entry = AuditEntry.objects.filter(action="membership.created")[0]
    assert (entry.actor, entry.tenant) == (owner.user, acme)
    again = browser(owner).post(f"/t/{acme.pk}/people/add/", {"email": "bob@letters.test", "role": "viewer"})
    assert "is a member of Acme already" in again.content.decode() and b"<title>Error:" in again.content
    assert acme.memberships.get(user__email="bob@letters.test").role == "admin"


def test_too_many_are_refused_whether_they_have_an_account_or_not(acme, monkeypatch):
    monkeypatch.setattr(password_reset, "MOST_OF_NETWORK", 3)
    client, url = browser(member(acme, "ann", "owner")), f"/t/{acme.pk}/people/add/"
    known = [account(f"known{number}") for number in range(4)]
    for each in known[:3]:
        assert client.post(url, {"email": each.email, "role": "viewer"}, REMOTE_ADDR="192.0.2.1").status_code == 302
    for email in ("new@letters.test", known[3].email):
        refused = client.post(url, {"email": email, "role": "viewer"}, REMOTE_ADDR="192.0.2.1")
        assert "Too many requests came from your network" in refused.content.decode(), email
    assert acme.memberships.count() == 4 and not Message.objects.exists()
    # Nor are the letters used up that such an account asks for itself.
    monkeypatch.undo()
    for _ in range(password_reset.MOST_OF_ACCOUNT):
        password_reset.ask(known[0].email, ip="198.51.100.1", link=lambda token: f"/{token}/")
    assert Message.objects.count() == password_reset.MOST_OF_ACCOUNT


def test_who_became_an_owner_meanwhile_is_not_changed_by_an_admin(acme):
    member(acme, "ann", "owner")
    admin, found = member(acme, "bob", "admin"), member(acme, "carl", "admin")
    Membership.objects.filter(pk=found.pk).update(role="owner")
    with pytest.raises(ServiceError, match=r"carl@letters\.test is owner now"):
        tenants.change_membership(found, role="viewer", among=["viewer", "admin"], actor=admin.user)
    with pytest.raises(ServiceError, match=r"carl@letters\.test is owner now"):
        tenants.delete_membership(found, among=["viewer", "admin"], actor=admin.user)
    assert Membership.objects.get(pk=found.pk).role == "owner"
    assert not AuditEntry.objects.filter(action__in=["membership.changed", "membership.deleted"]).exists()


def test_an_address_hosted_here_is_refused_beside_its_field_and_nothing_is_made(acme):
    world.domain("acme.test", acme)
    page = browser(member(acme, "ann", "owner")).post(
        f"/t/{acme.pk}/people/add/", {"email": "x@acme.test", "role": "viewer"}
    )
    assert page.context["form"].errors["email"] and 'value="x@acme.test"' in page.content.decode()
    assert User.objects.count() == Membership.objects.count() == 1


def test_an_admin_neither_makes_nor_touches_an_owner(acme):
    owner, admin, viewer = (member(acme, name, name) for name in ("owner", "admin", "viewer"))
    client, start = browser(admin), f"/t/{acme.pk}/people/"
    client.post(f"{start}add/", {"email": "new@letters.test", "role": "owner"})
    client.post(f"{start}{viewer.pk}/", {"role": "owner"})
    client.post(f"{start}{admin.pk}/", {"role": "owner"})
    client.post(f"{start}{owner.pk}/", {"role": "viewer"})
    client.post(f"{start}{owner.pk}/remove/", {"x": "1"})
    assert dict(acme.memberships.values_list("user__email", "role")) == {
        f"{role}@letters.test": role for role in ("owner", "admin", "viewer")
    }
    client.post(f"{start}{viewer.pk}/", {"role": "admin"})
    viewer.refresh_from_db()
    assert viewer.role == "admin"
    assert browser(viewer).post(f"{start}{admin.pk}/remove/", {"x": "1"}).status_code == 302
    assert not Membership.objects.filter(pk=admin.pk).exists()


def test_the_last_owner_stays_one_but_the_provider_may(acme):
    owner = member(acme, "ann", "owner")
    client, there = browser(owner), f"/t/{acme.pk}/people/{owner.pk}/"
    for answer in (client.post(there, {"role": "viewer"}), client.post(f"{there}remove/", {"x": "1"})):
        assert "ann@letters.test is the last owner of Acme" in answer.content.decode()
    owner.refresh_from_db()
    assert owner.role == "owner"
    staff = member(acme, "ops", "owner")
    User.objects.filter(pk=staff.user_id).update(provider_role="support")
    assert "is the last owner" in client.post(f"{there}remove/", {"x": "1"}).content.decode(), "whom no page serves"
    member(acme, "bob", "owner")
    assert client.post(f"{there}remove/", {"x": "1"})["Location"] == "/"
    assert client.get(f"/t/{acme.pk}/").status_code == 404
    tenants.delete_membership(acme.memberships.get(user__email="bob@letters.test"), actor=None)


def test_a_resellers_owner_stands_in_for_the_last_one():
    above = world.tenant("Above")
    acme = world.tenant("Acme", parent=above)
    reseller, owner = member(above, "reseller", "owner"), member(acme, "ann", "owner")
    assert browser(reseller).post(f"/t/{acme.pk}/people/{owner.pk}/remove/", {"x": "1"}).status_code == 302
    page = browser(reseller).get(f"/t/{acme.pk}/people/")
    assert "Nobody is a member by itself" in page.content.decode()
    assert browser(reseller).get(f"/t/{above.pk}/people/{owner.pk}/").status_code == 404


def test_a_suspended_tenant_is_read_and_not_changed(acme):
    owner = member(acme, "ann", "owner")
    operations.suspend(acme, reason="unpaid", actor=None)
    client = browser(owner)
    for page in ("", "people/", "audit/", "people/add/"):
        assert client.get(f"/t/{acme.pk}/{page}").status_code == 200, page
    refused = client.post(f"/t/{acme.pk}/people/add/", {"email": "new@letters.test", "role": "viewer"})
    assert refused.status_code == 403 and "Acme is suspended" in refused.content.decode()
    assert not User.objects.filter(email="new@letters.test").exists()


def test_the_audit_log_is_the_tenants_own_searched_by_how_things_begin_and_paged(acme):
    owner, other = member(acme, "ann", "owner"), world.tenant("Other")
    member(other, "spy", "owner")
    for number in range(60):
        tenants.change_tenant(acme, notes="", name=f"Acme {number}", actor=owner.user, ip="192.0.2.1")
    client = browser(owner)
    first = client.get(f"/t/{acme.pk}/audit/")
    text = first.content.decode()
    assert "Acme 59" in text and "Acme 1<" not in text and "spy@" not in text
    second = client.get(f"/t/{acme.pk}/audit/?before={first.context['last']}").content.decode()
    assert "Membership created" in second and 'rel="next"' not in second and 'rel="prev"' in second
    for typed, count in (("membership cr", 1), ("ANN@", 50), ("nothing", 0), ("%", 0), ("<b>", 0)):
        found = client.get(f"/t/{acme.pk}/audit/", {"q": typed})
        assert len(found.context["changes"]) == count, typed
        assert "<b>" not in found.content.decode() or typed != "<b>"
    assert b"Nothing begins with" in found.content
