"""Closing a tenant in the console, and who may undo it; and asking a second factor of its members."""

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from panel.operations import services as operations
from panel.rules.status import Status
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, Tenant, User
from panel.tenants.sign_in import second_factor
from tests.support import world
from tests.support.authenticator import code_of

pytestmark = pytest.mark.django_db


def owner(tenant: Tenant, name: str) -> tuple[User, Client]:
    account = User.objects.create(kind=User.Kind.PANEL, email=f"{name}@letters.test", password="!")
    tenants.create_membership(user=account, tenant=tenant, role="owner", actor=None)
    client = Client()
    client.force_login(account)
    return account, client


def status(tenant: Tenant) -> int:
    return Tenant.objects.get(pk=tenant.pk).status


def test_an_owner_closes_by_name_and_undoes_it_while_it_is_kept():
    acme = world.tenant("Acme")
    world.domain("acme.test", acme)
    world.mailbox("ann@acme.test")
    _, client = owner(acme, "ann")
    path = f"/t/{acme.pk}/settings/"
    wrong = client.post(f"{path}close/", {"name": "Acne", "reason": "moved"}).content.decode()
    assert "This is not its name" in wrong and 'value="moved"' in wrong and status(acme) == Status.ACTIVE
    client.post(f"{path}close/", {"name": "Acme"})
    assert status(acme) == Status.CLOSED
    assert f'btn-primary end" href="{path}"' in client.get(f"/t/{acme.pk}/").content.decode()
    page = client.get(path).content.decode()
    assert "Acme is closed." in page and "Undo the closing" in page and "Close…" not in page
    client.post(f"{path}undo-closing/")
    assert status(acme) == Status.ACTIVE
    client.post(f"{path}close/", {"name": "Acme"})
    Tenant.objects.filter(pk=acme.pk).update(grace_ends_at=timezone.now())
    client.post(f"{path}undo-closing/")
    assert status(acme) == Status.CLOSED


def test_what_the_provider_or_the_reseller_closed_is_not_the_customers_to_undo():
    above = world.tenant("Above")
    acme = world.tenant("Acme", parent=above)
    (_, client), (reseller, theirs) = owner(acme, "ann"), owner(above, "rita")
    staff = operations.create_account(
        email="staff@letters.test", password=world.PASSWORD, provider_role="operator", actor=None
    )
    path = f"/t/{acme.pk}/settings/"
    for closer in (staff, None, reseller):
        operations.close(acme, actor=closer)
        assert "Undo the closing" not in client.get(path).content.decode()
        said = client.post(f"{path}undo-closing/", follow=True).content.decode()
        assert status(acme) == Status.CLOSED, closer
        assert ("by somebody above it: ask" if closer is reseller else "by your provider: ask there") in said
        theirs.post(f"{path}undo-closing/")
        assert (status(acme) == Status.ACTIVE) == (closer is reseller)
        if closer is not reseller:
            operations.restore(acme, actor=staff)


def in_with_factor(account: User) -> tuple[Client, str]:
    """Signed in after a second factor was set up."""
    secret = second_factor.new_secret()
    second_factor.add(account, secret, code_of(secret))
    client = Client()
    client.force_login(account)
    session = client.session
    session["second_factor"] = True
    session.save()
    return client, secret


def test_an_owner_asks_a_second_factor_of_everybody_and_does_not_lock_oneself_out():
    acme, other = world.tenant("Acme"), world.tenant("Second")
    (ann, client), (bob, theirs) = owner(acme, "ann"), owner(acme, "bob")
    tenants.create_membership(user=bob, tenant=other, role="viewer", actor=None)
    home, where = f"/t/{acme.pk}/", f"/t/{acme.pk}/settings/second-factor/"
    page = client.get(where).content.decode()
    assert "2 members have none today" in page and "You have none yourself" in page and 'name="required"' not in page
    assert "lock yourself out" in client.post(where, {"required": "yes"}).content.decode()
    assert not Tenant.objects.get(pk=acme.pk).second_factor_required

    client, secret = in_with_factor(ann)
    assert "1 member has none today" in client.get(where).content.decode()
    client.post(where, {"required": "yes"})
    assert AuditEntry.objects.filter(tenant=acme).latest("pk").after == {"second_factor_required": True}
    assert client.get(home).status_code == 200
    for path in (home, f"{home}people/", where):
        assert theirs.get(path)["Location"] == "/account/second-factor/", path
    assert theirs.post(where, {"required": "no"})["Location"] == "/account/second-factor/"
    assert "Acme lets in only those" in theirs.get("/account/second-factor/").content.decode()
    listed = {each["tenant"].name: each["asks"] for each in theirs.get("/tenants/").context["shown"]}
    assert listed == {"Acme": "Acme lets in only those who sign in with a second factor.", "Second": ""}
    assert theirs.get("/tenants/").content.decode().count('data-label="Mailboxes"') == 1, "nor is it told how many"
    assert client.get("/tenants/").context["shown"][0]["asks"] == ""
    assert theirs.get(f"/t/{other.pk}/").status_code == theirs.get("/account/").status_code == 200, "not that tenant's"

    # Where one of its tenants asks for it, the last one stays; a session without it is asked.
    assert "/remove/" not in client.get("/account/").content.decode()
    code = code_of(secret, steps=1)
    client.post("/account/second-factor/remove/", {"password": "x", "code": code})
    with pytest.raises(ServiceError, match="must have"):
        second_factor.remove(ann, actor=ann)
    without = Client()
    without.force_login(ann)
    assert without.get(home)["Location"] == "/sign-in/"

    client.post(where, {"required": "no"})
    assert theirs.get(home).status_code == 200
    second_factor.remove(ann, keep=client.session.session_key, actor=ann)
    assert client.get(home).status_code == 200, "by oneself"

    client, _secret = in_with_factor(ann)
    tenants.change_tenant(acme, second_factor_required=True, actor=ann)
    second_factor.remove(ann, actor=None)
    assert client.get(home)["Location"].startswith("/sign-in/"), "the session that was opened with it is over too"


@pytest.mark.parametrize(("by", "of"), [
    ("command line", ""), ("staff", ""), ("reseller", ""), ("at its making", ""), ("staff", "people_"),
    ("at its making", "people_"),
])
def test_what_the_provider_or_the_reseller_asks_no_owner_below_leaves_to_each(by, of):
    field = f"{of}second_factor_required"
    above = world.tenant("Above")
    acme = world.tenant("Acme", parent=above)
    rita, ann = owner(above, "rita")[0], owner(acme, "ann")[0]
    (theirs, _), (client, _) = in_with_factor(rita), in_with_factor(ann)
    staff = operations.create_account(
        email="staff@letters.test", password=world.PASSWORD, provider_role="operator", actor=None
    )
    if by == "at its making":
        acme = tenants.create_tenant(name="New", parent=above, **{field: True}, actor=staff)
        tenants.create_membership(user=ann, tenant=acme, role="owner", actor=None)
    else:
        who = {"command line": None, "staff": staff, "reseller": rita}[by]
        tenants.change_tenant(acme, **{field: True}, actor=who)

    def is_required() -> bool:
        return getattr(Tenant.objects.get(pk=acme.pk), field)

    settings = f"/t/{acme.pk}/settings/"
    where = f"{settings}{of.replace('_', '-')}second-factor/"
    assert where not in (page := client.get(settings).content.decode()) and "Somebody above" in page
    assert client.get(where)["Location"] == settings
    refused = client.post(where, {"required": "no"}).content.decode()
    assert "asks for a second factor here" in refused and is_required()
    theirs.post(where, {"required": "no"})
    assert is_required() == (by != "reseller")
    tenants.change_tenant(acme, **{field: False}, actor=staff)
    client.post(where, {"required": "yes"})
    assert is_required()
    client.post(where, {"required": "no"})
    assert not is_required(), "one's own is"


def test_it_holds_for_members_of_a_tenant_above_where_that_one_or_this_one_asks(capsys):
    above = world.tenant("Above")
    acme = world.tenant("Acme", parent=above)
    (_, theirs), (_, client) = owner(above, "rita"), owner(acme, "ann")
    call_command("tenant", "set", "Above", "--second-factor", "required")
    paths = (f"/t/{above.pk}/", f"/t/{acme.pk}/")
    assert [theirs.get(path).status_code for path in paths] == [302, 302]
    assert client.get(paths[1]).status_code == 200, "a customer's own people aren't asked by its reseller"
    asking = [[bool(each["asks"]) for each in one.get("/tenants/").context["shown"]] for one in (theirs, client)]
    assert asking == [[True, True], [False]]
    call_command("tenant", "set", "Above", "--second-factor", "optional", "--people-second-factor", "required")
    assert Tenant.objects.get(pk=above.pk).people_second_factor_required
    tenants.change_tenant(acme, second_factor_required=True, actor=None)
    assert [theirs.get(path).status_code for path in paths] == [200, 302]
    assert client.get(paths[1]).status_code == 302
