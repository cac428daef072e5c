"""The provider's staff in a tenant's console: they look, for an hour at most, and the tenant is told."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from mailserver.spool import closed
from panel.operations import invitations
from panel.operations import services as operations
from panel.tenants import services as tenants
from panel.tenants import visits
from panel.tenants.changes import ServiceError
from panel.tenants.models import AuditEntry, Invitation, User, Visit
from tests.support import world

pytestmark = pytest.mark.django_db

REASON = "asked why a message waits"


@pytest.fixture
def acme():
    return world.tenant("Acme")


def account(name: str, **fields) -> User:
    return User.objects.create(kind=User.Kind.PANEL, email=f"{name}@letters.test", password="!", **fields)


def browser(account: User) -> Client:
    client = Client()
    client.force_login(account)
    return client


def look(client: Client, tenant) -> str:
    answer = client.post(f"/admin/tenants/tenant/{tenant.pk}/view-as/", {"reason": REASON})
    return str(answer.get("Location", ""))


def told(tenant) -> list[tuple[str, str, object]]:
    entries = AuditEntry.objects.filter(tenant=tenant, action__startswith="tenant.view_").order_by("pk")
    return [(each.action, each.actor_name, each.after.get("because")) for each in entries]


def test_support_looks_and_the_tenant_is_told_when_it_begins_and_ends(acme):
    support, owner = account("support", provider_role="support"), account("owner")
    tenants.create_membership(user=owner, tenant=acme, role="owner", actor=None)
    client, home = browser(support), f"/t/{acme.pk}/"
    assert client.get(home).status_code == 404
    asked = client.get(f"/admin/tenants/tenant/{acme.pk}/view-as/")
    assert asked.status_code == 200 and "in its audit log" in asked.content.decode()
    assert client.post(f"/admin/tenants/tenant/{acme.pk}/view-as/", {"reason": " "}).status_code == 200
    assert not Visit.objects.exists(), "not without a reason"
    assert look(client, acme) == home
    page = client.get(home).content.decode()
    assert "Your provider" not in page, "to whoever looks"
    assert "as provider staff" in page and "read-only" in page and 'href="/admin/account/"' in page
    theirs = browser(owner).get(home).content.decode()
    assert "Your provider is looking into this console" in theirs and REASON in theirs
    assert "as provider staff" not in theirs
    assert client.post("/language/", {"language": "ja"}).status_code == 302
    client.cookies.pop("django_language")
    assert client.post(f"{home}leave/")["Location"] == f"/admin/tenants/tenant/{acme.pk}/change/"
    assert client.get(home).status_code == 404 and client.get("/admin/").status_code == 200
    assert "Your provider looked into this console" in browser(owner).get(home).content.decode()
    assert told(acme) == [
        ("tenant.view_began", support.email, None), ("tenant.view_ended", support.email, visits.LEFT)
    ]
    log = browser(owner).get(f"{home}audit/?q=tenant+view").content.decode()
    assert log.count("Tenant view") == 2 and log.count(REASON) == 2
    Visit.objects.update(began_at=timezone.now() - visits.SHOWN_FOR)
    assert "Your provider" not in browser(owner).get(home).content.decode(), "a week later the log alone tells it"


@pytest.mark.parametrize("out", ["/sign-out/", "/admin/logout/", "/admin/account/sessions/end/", "/invitation/x/"])
def test_signing_out_ends_it(acme, out, monkeypatch):
    someone = account("operator", provider_role="operator")
    client = browser(someone)
    look(client, acme)
    asked = Invitation(tenant=acme, email="new@letters.test", role="viewer", invited_by=someone, sent_at=timezone.now())
    monkeypatch.setattr(invitations, "of", lambda token: asked)
    client.post(out, {"act": "sign-out"})
    assert told(acme)[1:] == [("tenant.view_ended", "operator@letters.test", visits.SIGNED_OUT)]


def test_one_tenant_at_a_time_and_in_the_session_that_began_it(acme):
    other, staff = world.tenant("Other"), account("owner", provider_role="owner")
    here, elsewhere = browser(staff), browser(staff)
    look(here, acme)
    assert elsewhere.get(f"/t/{acme.pk}/").status_code == 404
    look(here, other)
    assert here.get(f"/t/{other.pk}/").status_code == 200 and here.get(f"/t/{acme.pk}/").status_code == 404
    assert told(acme)[1:] == [("tenant.view_ended", staff.email, visits.ANOTHER)]
    assert Visit.objects.filter(ended_at=None).get().tenant == other


def test_it_is_over_after_an_hour_whether_or_not_anybody_leaves(acme, tmp_path):
    client = browser(account("support", provider_role="support"))
    look(client, acme)
    now = timezone.now()
    closed.end_grace(now, tmp_path)
    assert client.get(f"/t/{acme.pk}/").status_code == 200
    Visit.objects.update(ends_at=now - timedelta(seconds=1))
    assert client.get(f"/t/{acme.pk}/").status_code == 404
    for _twice in range(2):
        closed.end_grace(now, tmp_path)
    assert told(acme)[1:] == [("tenant.view_ended", "support@letters.test", visits.OVER)]
    visit = Visit.objects.get()
    assert visit.ended_at == visit.ends_at


def test_who_is_no_longer_staff_or_never_was_looks_nowhere(acme):
    member, staff = account("member"), account("support", provider_role="support")
    tenants.create_membership(user=member, tenant=world.tenant("Other"), role="owner", actor=None)
    with pytest.raises(ServiceError, match="Only the provider's accounts"):
        visits.begin(acme, reason=REASON, actor=member)
    # What stands in the session of somebody who isn't staff opens nothing.
    client = browser(member)
    session = client.session
    session[visits.VISIT] = visits.begin(acme, reason=REASON, actor=staff).pk
    session.save()
    assert client.get(f"/t/{acme.pk}/").status_code == client.post(f"/t/{acme.pk}/leave/").status_code == 404
    assert Visit.objects.get().goes_on
    # A member of the tenant who is staff is there as staff, with no other role.
    tenants.create_membership(user=staff, tenant=acme, role="owner", actor=None)
    theirs = browser(staff)
    look(theirs, acme)
    assert theirs.get(f"/t/{acme.pk}/people/add/").status_code == 403
    operations.change_account(staff, provider_role="", actor=None)
    assert theirs.get(f"/t/{acme.pk}/people/add/").status_code == 200, "and as what it is in the tenant afterwards"
