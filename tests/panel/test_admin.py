"""The provider's admin, by Django's client: what each role may do, and that changes go through services."""

import re
from datetime import timedelta

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from panel.domains.models import Domain
from panel.mailboxes.models import Alias, Credential, LoginEvent, Mailbox
from panel.operations import services as operations
from panel.rules.status import Status
from panel.sending.models import OutboundRoute, SendingLimit
from panel.tenants.models import AuditEntry, DirectoryChange, Membership, Tenant, User
from tests.support import world

pytestmark = pytest.mark.django_db

PASSWORD = "an unusual password"


@pytest.fixture
def accounts() -> dict[str, User]:
    made = {
        role: operations.create_account(
            email=f"{role}@provider.test", password=PASSWORD, provider_role=role, actor=None
        )
        for role in ("owner", "operator", "support")
    }
    made["tenant"] = operations.create_account(email="ann@acme.test", password=PASSWORD, actor=None)
    return made


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def owner(accounts) -> Client:
    return client_of(accounts["owner"])


def add_url(model: str) -> str:
    return reverse(f"admin:{model}_add")


def change_url(model: str, row) -> str:
    return reverse(f"admin:{model}_change", args=(row.pk,))


@pytest.mark.parametrize("lookup", [
    "sessions__session_key__startswith", "sessions__pk__startswith", "sessions__gt", "sessions__lt", "sessions__in",
    "sessions__user__sessions__gt", "second_factor__gt", "password__startswith",
])
def test_no_list_is_narrowed_down_by_a_session(accounts, owner, lookup):
    """Its key is its secret: whoever asks for it letter by letter is in as its owner."""
    answer = client_of(accounts["support"]).get(reverse("admin:tenants_user_changelist"), {lookup: "a"})
    assert answer.status_code == 400


@pytest.mark.parametrize("asked", [
    {"email__regex": "["}, {"name__iregex": "(a+)+$"}, {"_to_field": "sessions"}, {"_to_field": "second_factor"},
])
def test_a_list_takes_no_expression_and_no_field_that_is_none(owner, asked):
    """The database's engine, or ours in its place, would work on an expression for as long as its writer likes."""
    assert owner.get(reverse("admin:tenants_user_changelist"), asked).status_code == 400


@pytest.mark.once("postgresql")
@pytest.mark.parametrize("model", admin.site._registry, ids=lambda each: each.__name__)
def test_a_list_is_narrowed_down_only_by_what_its_own_rows_hold(model, rf, accounts):
    request = rf.get("/")
    request.user = accounts["owner"]
    for relation in model._meta.related_objects:
        for end in ("", "__gt", "__pk__startswith", "__in"):
            assert not admin.site._registry[model].lookup_allowed(f"{relation.name}{end}", "a", request)


def test_the_whole_way_from_tenant_to_app_password(owner):
    plan = Tenant._meta.get_field("plan").remote_field.model.objects.get(name="Standard")
    assert owner.post(add_url("tenants_tenant"), {"name": "Acme", "plan": plan.pk, "notes": ""}).status_code == 302
    acme = Tenant.objects.get(name="Acme")
    made = owner.post(add_url("domains_domain"), {"name": "ACME.example", "tenant": acme.pk, "verified": "on"})
    assert made.status_code == 302
    domain = Domain.objects.get(name="acme.example")
    assert domain.proof == "proved"
    made = owner.post(
        add_url("mailboxes_mailbox"), {"full_address": "Ann@acme.example", "password": PASSWORD, "name": "Ann"}
    )
    assert made.status_code == 302
    mailbox = Mailbox.objects.get()
    assert str(mailbox) == "ann@acme.example"
    made = owner.post(
        add_url("mailboxes_alias"),
        {"full_address": "info@acme.example", "targets": "ann@acme.example\nbob@elsewhere.test", "description": ""},
    )
    assert made.status_code == 302
    assert [each.target for each in Alias.objects.get().targets.all()] == ["ann@acme.example", "bob@elsewhere.test"]
    shown = owner.post(
        add_url("mailboxes_credential"), {"mailbox": mailbox.pk, "label": "web shop", "scopes": ["submission"]}
    )
    assert shown.status_code == 200
    assert b"ph-app-" in shown.content
    assert "no-store" in shown.headers["Cache-Control"]
    assert Credential.objects.filter(kind="app", label="web shop").exists()
    made = owner.post(add_url("sending_sendinglimit"), {"mailbox": mailbox.pk, "window": "hour", "recipients": 7})
    assert made.status_code == 302
    assert SendingLimit.objects.get().recipients == 7
    made = owner.post(
        add_url("sending_outboundroute"),
        {"domain": "partner.test", "host": "relay.partner.test", "port": 25, "tls": "opportunistic"},
    )
    assert made.status_code == 302
    assert OutboundRoute.objects.get().host == "relay.partner.test"
    actions = set(AuditEntry.objects.values_list("action", flat=True))
    assert {"tenant.created", "domain.created", "mailbox.created", "alias.created", "limit.set"} <= actions
    assert DirectoryChange.objects.filter(domain="acme.example").exists()


def test_a_refusal_stands_beside_its_field_and_keeps_what_was_typed(owner):
    world.domain("demo.test", world.tenant())
    world.mailbox("shop@demo.test")
    for address, words in (
        ("shop@demo.test", "taken"), ("ann@elsewhere.test", "elsewhere.test"), ("no address", "address"),
    ):
        page = owner.post(add_url("mailboxes_mailbox"), {"full_address": address, "password": PASSWORD, "name": "Ann"})
        assert page.status_code == 200
        errors = page.context["adminform"].form.errors
        assert words in str(errors["full_address"]), errors
        assert 'value="Ann"' in page.content.decode()
    assert Mailbox.objects.count() == 1


def test_a_domains_store_is_changed_on_its_page(owner):
    domain = world.domain("demo.test", world.tenant())
    assert owner.post(change_url("domains_domain", domain), {"store": "maildir"}).status_code == 302
    page = owner.post(change_url("domains_domain", domain), {"store": "lmtp"})
    assert "POSTHOUSE_STORE" in str(page.context["adminform"].form.errors["store"])
    domain.refresh_from_db()
    assert domain.store == "maildir"


def test_suspend_and_resume_are_confirmed_audited_and_told_to_the_caches(owner):
    tenant = world.tenant()
    world.domain("demo.test", tenant)
    mailbox = world.mailbox("shop@demo.test")
    domain = tenant.domains.get()
    for model, row in (("mailboxes_mailbox", mailbox), ("tenants_tenant", tenant), ("domains_domain", domain)):
        url = reverse(f"admin:{model}_suspend", args=(row.pk,))
        assert owner.get(url).status_code == 200
        page = owner.post(url, {"reason": "", "level": "all"})
        assert "required" in str(page.context["form"].errors["reason"])
        before = DirectoryChange.objects.count()
        assert owner.post(url, {"reason": "found in a leak", "level": "sending"}).status_code == 302
        row.refresh_from_db()
        assert (row.status, row.status_reason) == (Status.NO_SENDING, "found in a leak")
        assert DirectoryChange.objects.count() > before
        assert b"found in a leak" in owner.get(change_url(model, row)).content
        page = owner.post(url, {"reason": "again", "level": "sending"})
        assert page.status_code == 200, "already suspended: said on the page"
        assert owner.post(reverse(f"admin:{model}_resume", args=(row.pk,)), {"reason": ""}).status_code == 302
        row.refresh_from_db()
        assert row.status == Status.ACTIVE
        history = owner.get(reverse(f"admin:{model}_history", args=(row.pk,)))
        assert b"found in a leak" in history.content


def every_url() -> list[str]:
    pages = [reverse("admin:index")]
    for model in admin.site._registry:
        label = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        pages += [reverse(f"{label}_changelist")]
    return pages


def test_every_page_opens_for_each_provider_role(accounts):
    for role in ("owner", "operator", "support"):
        client = client_of(accounts[role])
        for url in every_url():
            assert client.get(url).status_code == 200, (role, url)


@pytest.mark.once("postgresql")
def test_nobody_else_enters(accounts):
    mailbox_person = User.objects.create(kind=User.Kind.PERSON, email=None, password="!")
    for client in (Client(), client_of(accounts["tenant"]), client_of(mailbox_person)):
        for url in every_url():
            answer = client.get(url)
            assert answer.status_code == 302
            assert answer.headers["Location"].startswith(reverse("admin:login"))


def test_support_reads_and_changes_nothing(accounts):
    tenant = world.tenant()
    world.domain("demo.test", tenant)
    mailbox = world.mailbox("shop@demo.test")
    client = client_of(accounts["support"])
    assert client.get(change_url("mailboxes_mailbox", mailbox)).status_code == 200
    assert client.post(change_url("mailboxes_mailbox", mailbox), {"name": "X"}).status_code == 403
    assert client.post(add_url("tenants_tenant"), {"name": "X"}).status_code == 403
    for name in ("suspend", "set_password"):
        url = reverse(f"admin:mailboxes_mailbox_{name}", args=(mailbox.pk,))
        assert client.post(url, {"reason": "x", "level": "all", "password": PASSWORD}).status_code == 403
    mailbox.refresh_from_db()
    assert mailbox.status == Status.ACTIVE
    assert AuditEntry.objects.filter(action__startswith="mailbox").count() == 0


def test_an_operator_makes_no_accounts(accounts):
    client = client_of(accounts["operator"])
    assert client.get(add_url("tenants_user")).status_code == 403
    assert client.post(add_url("tenants_membership"), {}).status_code == 403
    assert client.get(change_url("tenants_user", accounts["owner"])).status_code == 200
    url = reverse("admin:tenants_user_set_password", args=(accounts["owner"].pk,))
    assert client.post(url, {"password": PASSWORD}).status_code == 403


def test_a_person_is_not_listed_as_an_account(owner):
    world.domain("demo.test", world.tenant())
    mailbox = world.mailbox("shop@demo.test")
    assert owner.get(change_url("tenants_user", mailbox.person)).status_code in (302, 404)
    assert Membership.objects.count() == 0


@pytest.mark.once("postgresql")
def test_pages_carry_a_content_security_policy(owner):
    policy = owner.get(reverse("admin:index")).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "frame-ancestors 'none'" in policy


def test_hostile_names_are_shown_harmless(owner):
    tenant = world.tenant('<script>alert(1)</script>{{ 7*7 }}')
    page = owner.get(reverse("admin:tenants_tenant_changelist")).content.decode()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;" in page
    assert "{{ 7*7 }}" in owner.get(change_url("tenants_tenant", tenant)).content.decode()


def test_logins_are_listed_and_the_latest_stand_on_the_mailbox_s_page(accounts):
    world.domain("demo.test", world.tenant())
    mailbox, other = world.mailbox("shop@demo.test"), world.mailbox("office@demo.test")
    world.login_event(mailbox, ip="192.0.2.1")
    for number in range(10):
        world.login_event(mailbox, ip=f"203.0.113.{number}", outcome="wrong", credential_text="", count=4711)
    world.login_event(other, ip=None, outcome="locked")
    world.login_event(other, mailbox=None, tenant=None, login="admin@demo.test", outcome="wrong")
    client = client_of(accounts["support"])
    page = client.get(change_url("mailboxes_mailbox", mailbox)).content.decode()
    assert "203.0.113.9" in page and "203.0.113.0" in page
    assert "192.0.2.1" not in page, "only the latest ten"
    assert '<span class="ph-state is-warn">wrong password</span>' in page
    assert "4711" in page
    listed = f"{reverse('admin:mailboxes_loginevent_changelist')}?mailbox__id__exact={mailbox.pk}"
    assert f'href="{listed}"' in page
    rows = client.get(listed).content.decode()
    assert "192.0.2.1" in rows and "office@demo.test" not in rows
    everything = client.get(reverse("admin:mailboxes_loginevent_changelist")).content.decode()
    assert "admin@demo.test" in everything and "locked after wrong ones" in everything
    found = client.get(reverse("admin:mailboxes_loginevent_changelist") + "?q=203.0.113.7&outcome__exact=wrong")
    assert "203.0.113.7" in found.content.decode() and "203.0.113.8" not in found.content.decode()
    assert "many networks" in client.get(change_url("mailboxes_mailbox", other)).content.decode()


def test_list_of_logins_is_narrowed_by_what_an_operator_looks_for(owner):
    world.domain("demo.test", world.tenant())
    shop, office = world.mailbox("shop@demo.test"), world.mailbox("office@demo.test")
    old = timezone.now() - timedelta(days=2)
    world.login_event(shop, ip="203.0.113.1", protocol="imap", at=old, last_at=old)
    world.login_event(shop, ip="203.0.113.2", protocol="submission")
    world.login_event(office, ip="203.0.113.3", protocol="imap", credential_text='app password "phone"', count=1204)
    listed = reverse("admin:mailboxes_loginevent_changelist")

    def shown(query: str) -> set[str]:
        return set(re.findall(r"203\.0\.113\.\d", owner.get(f"{listed}?{query}").content.decode()))

    assert shown("") == {"203.0.113.1", "203.0.113.2", "203.0.113.3"}
    assert shown("protocol=imap") == {"203.0.113.1", "203.0.113.3"}
    assert shown("protocol=panel") == set()
    assert shown("since=24") == {"203.0.113.2", "203.0.113.3"}
    assert shown("since=24&protocol=imap") == {"203.0.113.3"}
    assert shown(f"mailbox__id__exact={shop.pk}") == {"203.0.113.1", "203.0.113.2"}
    page = owner.get(listed).content.decode()
    assert "IMAP, app password “phone”" in page and "1,204" in page and "2 days ago" in page


def test_page_of_a_login_leads_to_its_mailbox_while_there_is_one(owner):
    world.domain("demo.test", world.tenant())
    mailbox = world.mailbox("shop@demo.test")
    event, unknown = world.login_event(mailbox), world.login_event(mailbox, mailbox=None, tenant=None, login="admin")
    page = owner.get(change_url("mailboxes_loginevent", event)).content.decode()
    assert f'href="{change_url("mailboxes_mailbox", mailbox)}"' in page
    assert owner.get(change_url("mailboxes_loginevent", unknown)).status_code == 200
    LoginEvent.objects.filter(pk=event.pk).update(mailbox=10**9)
    assert "one that is gone" in owner.get(change_url("mailboxes_loginevent", event)).content.decode()


def test_nobody_changes_a_login_not_even_an_owner(owner):
    world.domain("demo.test", world.tenant())
    event = world.login_event(world.mailbox("shop@demo.test"))
    assert owner.get(add_url("mailboxes_loginevent")).status_code == 403
    assert owner.get(change_url("mailboxes_loginevent", event)).status_code == 200
    assert owner.post(change_url("mailboxes_loginevent", event), {"login": "x"}).status_code == 403
    assert owner.post(reverse("admin:mailboxes_loginevent_delete", args=(event.pk,))).status_code == 403


def test_login_of_a_password_that_was_revoked_is_still_shown(owner):
    world.domain("demo.test", world.tenant())
    mailbox = world.mailbox("shop@demo.test")
    app, _ = world.app_password(mailbox)
    event = world.login_event(mailbox, credential=app, credential_text=str(app))
    app.delete()
    for url in (change_url("mailboxes_mailbox", mailbox), change_url("mailboxes_loginevent", event)):
        assert "web shop" in owner.get(url).content.decode()
