"""Whose rows a person sees: every model that names its way to a tenant."""

import pytest
from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.utils import timezone

from panel.domains.models import Domain, DomainCheck
from panel.domains.services import create_domain_alias
from panel.mailboxes import links
from panel.mailboxes.models import Credential, MailboxUsage, VacationAnswer
from panel.operations import services as operations
from panel.sending.models import Attempt, Message, Recipient
from panel.sending.services import set_limit
from panel.tenants import audit, visits
from panel.tenants import services as tenants
from panel.tenants.models import Invitation, Tenant, User
from panel.tenants.scoping import ScopedQuerySet
from tests.support import queue, world

SCOPED = sorted((model for model in apps.get_models() if hasattr(model, "to_tenant")), key=lambda model: model.__name__)


def of_everything(owner: Tenant, name: str) -> None:
    """A row of each scoped model that belongs to the tenant."""
    domain = world.domain(f"{name}.test", owner)
    create_domain_alias(name=f"{name}-alias.test", domain=domain, actor=None)
    DomainCheck.objects.create(domain=domain)
    mailbox = world.mailbox(f"a@{name}.test")
    world.alias(f"b@{name}.test", f"a@{name}.test")
    world.login_event(mailbox)
    MailboxUsage.objects.create(mailbox=mailbox, used_bytes=1, messages=1, known_at=timezone.now())
    world.rules(mailbox, blocked=["elsewhere.test"])
    VacationAnswer.objects.create(mailbox=mailbox, sender="x@elsewhere.test", until=timezone.now())
    set_limit(mailbox, window="hour", recipients=1, actor=None)
    queue.attempt(queue.waiting(owner, "x@elsewhere.test"))
    tenants.create_membership(user=account(f"member@{name}.example"), tenant=owner, role="owner", actor=None)
    Invitation.objects.create(
        tenant=owner, email=f"invited@{name}.example", role="viewer", sent_at=timezone.now(), token=name
    )
    audit.record(None, "tenant.seen", owner, tenant=owner)
    tied = account(f"tied@{name}.example")
    links.link(mailbox.credentials.get(), tied, actor=None)
    staff = account(f"staff@{name}.example", provider_role="support")
    visits.begin(owner, reason="asked for help", actor=staff)


def account(email: str, **fields) -> User:
    return User.objects.create(kind=User.Kind.PANEL, email=email, password="!", **fields)


def member(tenant: Tenant, role: str = "viewer") -> User:
    user = account(f"{role}@{tenant.name.lower()}.example".replace(" ", ""))
    tenants.create_membership(user=user, tenant=tenant, role=role, actor=None)
    return user


@pytest.fixture
def family(db):
    """A reseller, its customer, the customer's customer, and a stranger, each with a row of everything."""
    reseller = world.tenant("Reseller")
    customer = world.tenant("Customer", parent=reseller)
    below = world.tenant("Below", parent=customer)
    stranger = world.tenant("Stranger")
    for tenant in (reseller, customer, below, stranger):
        of_everything(tenant, tenant.name.lower())
    return {"reseller": reseller, "customer": customer, "below": below, "stranger": stranger}


def owners(model, user) -> set[str]:
    rows = model.objects.for_user(user)
    path = "name" if model is Tenant else f"{model.to_tenant}__name"
    return set(rows.values_list(path, flat=True))


# Models that no tenant's account is ever given rows of by `for_user`.
UNSCOPED = {
    "Plan": "the provider's", "OutboundRoute": "the provider's", "Node": "the provider's",
    "User": "a tenant's accounts are its memberships", "SecondFactor": "its account's alone",
    "Passkey": "its account's alone", "RecoveryCode": "its account's alone",
    "PanelSession": "its account's alone", "PasswordReset": "digests",
    "WrongSignIn": "digests", "DirectoryChange": "the caches'", "Counter": "shown as limits",
    "Content": "never shown", "LetterSent": "digests", "BulkAct": "the provider's", "Traffic": "the provider's counts",
    "Untold": "a mark", "Look": "a mark", "RecoveryAsked": "its person's alone",
}


def test_every_model_of_ours_is_scoped_or_says_why_not():
    """A model that leads to a tenant in any way must not be forgotten."""
    ours = {model for model in apps.get_models() if model.__module__.startswith("panel.")}
    assert {model.__name__ for model in ours - set(SCOPED)} == set(UNSCOPED)


def test_every_way_to_a_tenant_exists_and_is_the_querysets():
    for model in SCOPED:
        assert isinstance(model._default_manager.all(), ScopedQuerySet), model
        field = model._meta.pk if model.to_tenant == "pk" else None
        for step in model.to_tenant.split("__") if field is None else ():
            field = (field.remote_field.model if field else model)._meta.get_field(step)
        assert model is Tenant or field.remote_field.model is Tenant, model


def test_every_scoped_model_is_asked():
    names = {model.__name__ for model in SCOPED}
    assert names >= {
        "Tenant", "Membership", "AuditEntry", "Domain", "DomainAlias", "Address", "Mailbox", "Alias", "AliasTarget",
        "Credential", "LoginEvent", "SendingLimit", "Message", "Recipient", "Attempt",
    }


# Each goes through all models on one family, which takes longer to make than to ask.


def test_member_sees_the_own_tenant_and_those_below(family):
    members = {name: member(tenant) for name, tenant in family.items()}
    for model in SCOPED:
        assert owners(model, members["reseller"]) == {"Reseller", "Customer", "Below"}, model
        assert owners(model, members["customer"]) == {"Customer", "Below"}, model
        assert owners(model, members["below"]) == {"Below"}, model
        assert owners(model, members["stranger"]) == {"Stranger"}, model


def test_who_is_no_member_sees_nothing(family):
    person = Credential.objects.first().mailbox.person
    closed = member(family["reseller"], "owner")
    closed.is_active = False
    closed.save(update_fields=["is_active"])
    closed_staff = account("gone@provider.example", provider_role="owner", is_active=False)
    for user in (person, closed, closed_staff, account("nobody@elsewhere.example")):
        for model in SCOPED:
            assert not model.objects.for_user(user).exists(), (model, user)


def test_provider_sees_all_once(family):
    for role in ("support", "operator", "owner"):
        staff = account(f"{role}@provider.example", provider_role=role)
        for model in SCOPED:
            assert owners(model, staff) >= {"Reseller", "Customer", "Below", "Stranger"}, (model, role)
    # A member of both a parent and its child sees each row once.
    both = member(family["reseller"])
    tenants.create_membership(user=both, tenant=family["customer"], role="admin", actor=None)
    for model in SCOPED:
        rows = list(model.objects.for_user(both).values_list("pk", flat=True))
        assert len(rows) == len(set(rows)), model


@pytest.mark.parametrize("role", ["owner", "admin", "viewer"])
def test_each_role_of_a_membership_sees_the_same(family, role):
    for model in SCOPED:
        assert owners(model, member(family["customer"], f"{role}")) == {"Customer", "Below"}, model
        User.objects.filter(email=f"{role}@customer.example").delete()


def test_who_is_moved_or_put_out_no_longer_sees(family):
    """By the next question: nothing of it is kept."""
    reseller, customer, stranger = (member(family[name]) for name in ("reseller", "customer", "stranger"))
    Tenant.objects.filter(pk=family["customer"].pk).update(parent=family["stranger"])
    for model in SCOPED:
        assert owners(model, reseller) == {"Reseller"}, model
        assert owners(model, customer) == {"Customer", "Below"}, model
        assert owners(model, stranger) == {"Stranger", "Customer", "Below"}, model
    reseller.memberships.all().delete()
    for model in SCOPED:
        assert not model.objects.for_user(reseller).exists(), model


def test_rows_of_no_tenant_are_the_provider_s_alone(family):
    """A shared domain, mail from elsewhere for nobody here, a login that is no mailbox's."""
    world.domain("shared.test")
    of_nobody = queue.recipient(queue.message(None), "x@elsewhere.test")
    queue.attempt(of_nobody)
    for model in (Domain, Message, Recipient, Attempt):
        path = f"{model.to_tenant}__isnull"
        assert model.objects.filter(**{path: True}).exists(), model
        assert not model.objects.for_user(member(family["reseller"], "viewer")).filter(**{path: True}).exists(), model
        assert model.objects.for_user(account("x@provider.example", provider_role="support")).filter(
            **{path: True}
        ).exists()
        User.objects.filter(email__in=["viewer@reseller.example", "x@provider.example"]).delete()


def test_nobody_signed_in_sees_nothing(family):
    for model in SCOPED:
        assert not model.objects.for_user(AnonymousUser()).exists(), model


def test_entries_of_the_provider_are_hidden_from_tenants(family):
    operations.create_account(email="ops@provider.example", password=world.PASSWORD, actor=None)
    from panel.tenants.models import AuditEntry

    assert AuditEntry.objects.filter(tenant=None, action="account.created").exists()
    assert not AuditEntry.objects.for_user(member(family["reseller"])).filter(action="account.created").exists()
