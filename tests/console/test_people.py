"""A tenant's people: who may name whom, the last owner, and what a suspended tenant may still do."""

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.translation import override

from panel.operations import invitations
from panel.operations import services as operations
from panel.sending import bulk, letters
from panel.sending.selection import Selection
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, Invitation, Membership, User
from panel.tenants.roles import ROLES
from tests.support import queue, world
from tests.support.post import posted

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


def invite(by: Membership, email: str, role: str = "admin"):
    """The page that follows, and the link's path, if a letter went out."""
    before = len(posted())
    page = browser(by).post(f"/t/{by.tenant_id}/people/add/", {"email": email, "role": role}, follow=True)
    new = posted()[before:]
    return page, new[0].path() if new else ""


def is_over(path: str) -> bool:
    return "This invitation is over" in Client().get(path).content.decode()


def test_an_account_and_an_address_without_one_are_invited_and_answered_alike(acme):
    owner, bob = member(acme, "ann", "owner"), account("bob")
    User.objects.filter(pk=bob.pk).update(name="Robert Foreign")
    said, links = [], []
    for email in (" Bob@letters.test ", "new@letters.test"):
        page, link = invite(owner, email)
        said.append(page.content.decode().split("is invited:")[1][:120])
        links.append(link)
        assert "Robert Foreign" not in page.content.decode(), "nor whose address it is"
    assert said[0] == said[1]
    assert [each.to for each in posted()] == ["bob@letters.test", "new@letters.test"]
    assert len({each.subject for each in posted()}) == 1
    assert acme.memberships.count() == 1 and User.objects.count() == 2, "nothing begins before it is accepted"
    assert not any(link.split("/")[-2] in str(Invitation.objects.values()) for link in links)
    again, _ = invite(owner, "bob@letters.test")
    assert "is invited already" in again.content.decode() and b"<title>Error:" in again.content
    refused, _ = invite(owner, "ann@letters.test")
    assert "is a member of Acme already" in refused.content.decode()
    assert len(posted()) == 2


def test_an_account_becomes_a_member_when_it_accepts_and_once(acme):
    owner, bob = member(acme, "ann", "owner"), account("bob")
    _page, link = invite(owner, "bob@letters.test")
    shown = Client().get(link).content.decode()
    assert "ann@letters.test invites bob@letters.test" in shown and "Look after Acme?" in shown
    assert f"/sign-in/?next={link.replace('/', '%2F')}" in shown and 'name="new"' not in shown
    other = Client()
    other.force_login(account("carl"))
    assert "and this is for bob@letters.test" in other.post(link, {"act": "accept"}).content.decode()
    assert other.post(link, {"act": "sign-out"})["Location"] == link
    assert Client().post(link, {"act": "accept"}).status_code == 200 and acme.memberships.count() == 1
    client = Client()
    client.force_login(bob)
    assert client.get(link).status_code == 200 and not is_over(link), "opening it uses nothing up"
    assert client.post(link, {"act": "accept"})["Location"] == f"/t/{acme.pk}/"
    assert acme.memberships.get(user=bob).role == "admin" and is_over(link)
    assert [(each.action, str(each.actor)) for each in AuditEntry.objects.filter(tenant=acme)[:3]] == [
        ("membership.created", "bob@letters.test"), ("invitation.accepted", "bob@letters.test"),
        ("invitation.sent", "ann@letters.test"),
    ]


def test_whoever_has_no_account_makes_one_by_the_link(acme):
    owner = member(acme, "ann", "owner")
    _page, link = invite(owner, "new@letters.test", "viewer")
    client = Client()
    weak = client.post(link, {"act": "join", "new": "short", "again": "short"})
    assert weak.context["form"].errors["new"] and not User.objects.filter(email="new@letters.test").exists()
    chosen = "an unusual password"
    joined = client.post(link, {"act": "join", "new": chosen, "again": chosen}, follow=True)
    assert "You look after Acme now, as viewer." in joined.content.decode()
    made = User.objects.get(email="new@letters.test")
    assert made.check_password(chosen) and acme.memberships.get(user=made).role == "viewer" and is_over(link)
    assert AuditEntry.objects.get(action="account.created").actor_name == "new@letters.test"


def test_an_account_of_the_providers_joins_nothing(acme):
    owner, staff = member(acme, "ann", "owner"), account("ops")
    User.objects.filter(pk=staff.pk).update(provider_role="support")
    _page, link = invite(owner, "ops@letters.test")
    client = Client()
    client.force_login(User.objects.get(pk=staff.pk))
    assert "Your account is the provider" in client.post(link, {"act": "accept"}).content.decode()
    assert acme.memberships.count() == 1


@pytest.mark.parametrize("what", [
    "declined", "withdrawn", "again", "late", "no longer an admin", "closed account", "closed tenant", "made up",
])
def test_a_link_that_is_over_lets_nobody_in(acme, what):
    member(acme, "ann", "owner")
    admin, bob = member(acme, "adam", "admin"), account("bob")
    _page, link = invite(admin, "bob@letters.test", "viewer")
    found = Invitation.objects.get()
    start = f"/t/{acme.pk}/people/invited/{found.pk}"
    if what == "declined":
        assert "You declined" in Client().post(link, {"act": "decline"}).content.decode()
        assert AuditEntry.objects.get(action="invitation.declined").actor_name == "bob@letters.test"
    elif what == "withdrawn":
        assert "is withdrawn" in browser(admin).post(f"{start}/withdraw/", follow=True).content.decode()
    elif what == "again":
        assert "is sent a new link" in browser(admin).post(f"{start}/again/", follow=True).content.decode()
        assert not is_over(posted()[-1].path())
    elif what == "late":
        Invitation.objects.update(sent_at=timezone.now() - invitations.LIFE)
    elif what == "no longer an admin":
        Membership.objects.filter(pk=admin.pk).update(role="viewer")
    elif what == "closed account":
        User.objects.filter(pk=admin.user_id).update(is_active=False)
    elif what == "closed tenant":
        operations.close(acme, actor=None)
    else:
        link = "/invitation/%00%ED%A0%80/"
    client = Client()
    client.force_login(bob)
    assert is_over(link)
    client.post(link, {"act": "accept"})
    with pytest.raises(ServiceError, match="was answered, was withdrawn, or is older"):
        invitations.accept(link.split("/")[-2], bob, ip=None)
    assert acme.memberships.count() == 2
    if what == "late":
        page = browser(admin).get(f"/t/{acme.pk}/people/").content.decode()
        assert "Void" in page and "Send again" in page
        assert invite(admin, "bob@letters.test", "viewer")[1], "what is void is in nobody's way"


def test_no_more_than_so_many_letters_go_out_to_an_address_or_from_a_tenant(acme, monkeypatch):
    owner = member(acme, "ann", "owner")
    account("bob")
    for email in ("bob@letters.test", "new@letters.test"):
        invite(owner, email)
        found = Invitation.objects.get(email=email)
        said = [
            "Try again tomorrow" in browser(owner).post(
                f"/t/{acme.pk}/people/invited/{found.pk}/again/", follow=True
            ).content.decode()
            for _ in range(invitations.MOST_TO_ONE)
        ]
        assert said == [False] * 4 + [True], email
    monkeypatch.setattr(invitations, "MOST_A_DAY", 10)
    refused, link = invite(owner, "third@letters.test")
    assert "Try again tomorrow" in refused.content.decode() and not link
    assert not Invitation.objects.filter(email="third@letters.test").exists(), "whom no letter tells isn't invited"
    other = member(world.tenant("Beta"), "ben", "owner")
    assert invite(other, "third@letters.test")[1]
    assert invite(other, "bob@letters.test")[1], "whom another tenant invited as often as it may"
    monkeypatch.setitem(letters.MOST_A_DAY, letters.Purpose.INVITATION, 6)
    refused, _link = invite(member(world.tenant("Gamma"), "gus", "owner"), "bob@letters.test")
    assert "Try again tomorrow" in refused.content.decode(), "but not without an end"


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
    assert User.objects.count() == Membership.objects.count() == 1 and not posted()


def test_an_admin_neither_makes_nor_touches_an_owner(acme):
    owner, admin, viewer = (member(acme, name, name) for name in ("owner", "admin", "viewer"))
    client, start = browser(admin), f"/t/{acme.pk}/people/"
    client.post(f"{start}add/", {"email": "new@letters.test", "role": "owner"})
    invite(owner, "other@letters.test", "owner")
    (invited,) = Invitation.objects.all()
    for act in ("again", "withdraw"):
        page = client.post(f"{start}invited/{invited.pk}/{act}/", follow=True)
        assert "Only an owner invites owners" in page.content.decode()
    assert Invitation.objects.get().sent_at == invited.sent_at and len(posted()) == 1
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
    for page in ("", "people/", "audit/"):
        assert client.get(f"/t/{acme.pk}/{page}").status_code == 200, page
    assert client.get(f"/t/{acme.pk}/people/add/").status_code == 403, "nobody fills in what is refused then"
    refused = client.post(f"/t/{acme.pk}/people/add/", {"email": "new@letters.test", "role": "viewer"})
    assert refused.status_code == 403 and "Acme is suspended" in refused.content.decode()
    assert not Invitation.objects.exists()


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
    assert b"No entry begins with" in found.content
    called = client.get(f"/t/{acme.pk}/audit/", {"q": "メンバー"}, headers={"accept-language": "ja"})
    assert {each.entry.action for each in called.context["changes"]} == {"membership.created"}
    queue.waiting(acme, "a@slow.test")
    bulk.ask("retry", Selection(tenant=acme.pk, hop="slow.test"), actor=None)
    told = client.get(f"/t/{acme.pk}/audit/", headers={"accept-language": "ja"}).context["changes"][0]
    with override("ja"):
        which = Selection(state="waiting").sentence()
        role = str(ROLES["owner"][0])
    assert told.subject == which != "waiting recipients" and which in {each.after for each in told.differences}
    joined = called.context["changes"][0]
    assert role in {each.after for each in joined.differences}
    assert "owner" not in called.content.decode().split("<tbody>")[1] and "（オーナー）" in called.content.decode()
