"""Plans, tenants, memberships, panel accounts."""

import pytest

from panel.domains import services as domains
from panel.operations import services as operations
from panel.tenants import services
from panel.tenants.changes import Gone, ServiceError, hash_password, many_lines, one_line
from panel.tenants.models import AuditEntry, Membership, Plan, Tenant, User
from tests.support import world

PASSWORD = world.PASSWORD


def account(email="ann@elsewhere.test", **fields):
    return operations.create_account(email=email, password=PASSWORD, actor=None, **fields)


def test_tenant_is_made_on_the_standard_plan_with_an_entry_it_can_read(db, traces):
    seen = traces()
    tenant = services.create_tenant(name="  Acme ", actor=None, ip="192.0.2.1")
    assert (tenant.name, tenant.plan.name) == ("Acme", "Standard")
    assert (seen.entry.action, seen.entry.tenant, seen.entry.actor_name) == ("tenant.created", tenant, "command line")
    assert seen.entry.ip == "192.0.2.1"
    assert seen.entry.after == {"name": "Acme", "plan": "Standard", "parent": None}


def test_second_tenant_of_a_name_is_refused_beside_the_field(tenant):
    with pytest.raises(ServiceError, match="There is a tenant Demo already") as refused:
        services.create_tenant(name="Demo", actor=None)
    assert refused.value.field == "name"


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x00b", "a\u2028b", "a\u202eb", "x" * 101, "a\ud800"])
def test_names_that_deceive_or_are_too_long_are_refused(db, name):
    with pytest.raises(ServiceError) as refused:
        services.create_tenant(name=name, actor=None)
    assert refused.value.field == "name"
    assert not Tenant.objects.exists()


def test_notes_may_have_lines_and_stay_the_providers(tenant, domain, traces):
    seen = traces()
    services.change_tenant(tenant, notes="owes\r\nus money", actor=None)
    tenant.refresh_from_db()
    assert tenant.notes == "owes\nus money"
    assert seen.entry.tenant is None
    assert "owes" not in str(seen.entry.after)


def test_change_tells_each_domain_in_which_the_tenant_has_a_part(tenant, domain, shared, other_tenant, traces):
    world.domain("other.test", other_tenant)
    world.mailbox("bob@isp.test", tenant)
    child = world.tenant("Child", parent=tenant)
    world.domain("child.test", child)
    plan = services.create_plan(name="Large", mailboxes=5, actor=None)
    seen = traces()
    services.change_tenant(tenant, plan=plan, actor=None)
    assert seen.domains == {"demo.test", "isp.test", "child.test"}
    assert (seen.entry.before, seen.entry.after) == ({"plan": "Standard"}, {"plan": "Large"})


def test_change_to_the_same_leaves_no_trace(tenant, traces):
    seen = traces()
    services.change_tenant(tenant, name="Demo", actor=None)
    assert seen.nothing


def test_tenants_stand_in_three_levels_and_in_no_circle(tenant):
    child = services.create_tenant(name="Child", parent=tenant, actor=None)
    grandchild = services.create_tenant(name="Grandchild", parent=child, actor=None)
    with pytest.raises(ServiceError, match="three levels"):
        services.create_tenant(name="Too deep", parent=grandchild, actor=None)
    with pytest.raises(ServiceError, match="below it"):
        services.change_tenant(tenant, parent=grandchild, actor=None)
    with pytest.raises(ServiceError, match="three levels"):
        services.change_tenant(tenant, parent=services.create_tenant(name="Top", actor=None), actor=None)


def test_plan_numbers_are_whole_and_not_negative(db, traces):
    for number in (-1, 2**31, True, 1.5):
        with pytest.raises(ServiceError) as refused:
            services.create_plan(name="Odd", mailboxes=number, actor=None)
        assert refused.value.field == "mailboxes"
    plan = services.create_plan(name="Small", mailboxes=2, actor=None)
    seen = traces()
    services.change_plan(plan, mailboxes=3, actor=None)
    assert Plan.objects.get(name="Small").mailboxes == 3
    assert seen.domains == {""}
    assert (seen.entry.before, seen.entry.after) == ({"mailboxes": 2}, {"mailboxes": 3})


def test_plan_in_use_is_not_deleted_and_leaves_no_entry(tenant, traces):
    seen = traces()
    with pytest.raises(ServiceError, match="Tenants are on the plan Standard"):
        services.delete_plan(tenant.plan, actor=None)
    assert seen.nothing
    plan = services.create_plan(name="Unused", actor=None)
    services.delete_plan(plan, actor=None)
    assert not Plan.objects.filter(name="Unused").exists()


def test_account_is_canonical_and_its_entry_holds_no_password(db, traces):
    seen = traces()
    made = account("Ann@Elsewhere.Test", provider_role="operator")
    assert made.email == "ann@elsewhere.test"
    assert made.check_password(PASSWORD)
    assert (made.is_staff, made.is_superuser) == (True, False)
    assert seen.entry.tenant is None
    assert PASSWORD not in str(seen.entry.after) and "argon2" not in str(seen.entry.after)


def test_account_at_a_hosted_domain_is_refused(domain):
    world.domain_alias("alias.test", domain)
    for email in ("boss@demo.test", "boss@alias.test"):
        with pytest.raises(ServiceError, match="addresses hosted here sign in with their mailbox") as refused:
            account(email)
        assert refused.value.field == "email"


def test_pending_domain_keeps_nobody_from_an_account(tenant):
    domains.create_domain(name="mail.test", tenant=tenant, actor=None)
    assert account("boss@mail.test").pk


@pytest.mark.parametrize("password", ["short", "1234567890123", "password1234\n", "x" * 201, "ann@elsewhere"])
def test_weak_or_odd_passwords_are_refused(db, password):
    with pytest.raises(ServiceError) as refused:
        operations.create_account(email="ann@elsewhere.test", password=password, actor=None)
    assert refused.value.field == "password"
    assert not User.objects.exists()


def test_hashed_password_hides_itself():
    assert "argon2" not in repr(hash_password(PASSWORD))


def test_last_owner_can_neither_go_nor_lose_the_role(db):
    owner = account(provider_role="owner")
    for refused in (
        lambda: services.delete_account(owner, actor=None),
        lambda: services.close_account(owner, actor=None),
        lambda: operations.change_account(owner, provider_role="support", actor=None),
    ):
        with pytest.raises(ServiceError, match="last provider owner"):
            refused()
    second = account("bob@elsewhere.test", provider_role="owner")
    services.close_account(owner, reason="left us", actor=second)
    owner.refresh_from_db()
    assert not owner.is_active and not owner.has_provider_role
    with pytest.raises(ServiceError, match="closed already"):
        services.close_account(owner, actor=second)
    services.reopen_account(owner, actor=second)
    assert User.objects.get(pk=owner.pk).is_active


def test_account_gets_another_password_role_and_address(db, traces):
    made = account()
    services.set_account_password(made, "another horse battery", actor=None)
    assert User.objects.get(pk=made.pk).check_password("another horse battery")
    operations.change_account(made, email="Bob@elsewhere.test", provider_role="support", actor=None)
    assert User.objects.get(pk=made.pk).email == "bob@elsewhere.test"
    account("carl@elsewhere.test")
    with pytest.raises(ServiceError, match=r"There is an account carl@elsewhere.test already"):
        operations.change_account(made, email="carl@elsewhere.test", actor=None)
    with pytest.raises(ServiceError, match="unknown"):
        operations.change_account(made, provider_role="god", actor=None)


def test_deleted_account_keeps_its_name_in_the_audit_log(tenant):
    made = account()
    services.create_membership(user=made, tenant=tenant, role="owner", actor=made)
    services.delete_account(made, actor=made)
    assert not Membership.objects.exists()
    entry = AuditEntry.objects.get(action="account.deleted")
    assert (entry.actor, entry.actor_name) == (None, "ann@elsewhere.test")
    with pytest.raises(Gone):
        services.delete_account(made, actor=None)


def test_person_is_no_panel_account(mailbox, tenant):
    for refused in (
        lambda: services.set_account_password(mailbox.person, PASSWORD, actor=None),
        lambda: services.create_membership(user=mailbox.person, tenant=tenant, role="owner", actor=None),
        lambda: services.delete_account(mailbox.person, actor=None),
        lambda: services.close_account(mailbox.person, actor=None),
        lambda: operations.change_account(mailbox.person, provider_role="owner", actor=None),
    ):
        with pytest.raises(ServiceError):
            refused()
    mailbox.person.refresh_from_db()
    assert not mailbox.person.has_usable_password() and mailbox.person.provider_role == ""


def test_membership_is_given_changed_and_taken_once(tenant, traces):
    made = account()
    seen = traces()
    membership = services.create_membership(user=made, tenant=tenant, role="viewer", actor=None)
    with pytest.raises(ServiceError, match="member of Demo already"):
        services.create_membership(user=made, tenant=tenant, role="owner", actor=None)
    services.change_membership(membership, role="admin", actor=None)
    services.delete_membership(membership, actor=None)
    assert seen.actions == ["membership.created", "membership.changed", "membership.deleted"]
    with pytest.raises(Gone):
        services.delete_membership(membership, actor=None)


def test_texts_are_kept_in_nfc():
    assert one_line("Bu\u0308ro", "name", most=10) == "B\u00fcro"
    assert many_lines("a\tb\r\nc", "notes", most=10) == "a\tb\nc"
    with pytest.raises(ServiceError):
        many_lines("a\x1bc", "notes", most=10)
