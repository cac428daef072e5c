"""Mailboxes, aliases, credentials: whose an address is, plans, loops, secrets."""

from datetime import timedelta

import pytest
from django.utils import timezone, translation

from panel.domains import services as domains
from panel.mailboxes import passwords, services
from panel.mailboxes.models import Address, Alias, Credential, Mailbox
from panel.operations import services as operations
from panel.rules.status import Status
from panel.tenants import audit
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError, Taken, hash_password
from panel.tenants.models import AuditEntry, DirectoryChange, User
from tests.support import world

PASSWORD = world.PASSWORD


def create(address, tenant=None, **fields):
    fields = {"password": PASSWORD, "actor": None, **fields}
    return services.create_mailbox(address=address, tenant=tenant, **fields)


def alias(address, *targets, tenant=None):
    return services.create_alias(address=address, targets=targets, tenant=tenant, actor=None)


# Mailboxes


def test_mailbox_has_address_person_and_main_password(domain, tenant, traces):
    seen = traces()
    mailbox = create(" Shop@DEMO.test ", name="Web shop")
    assert str(mailbox) == "shop@demo.test" and mailbox.address.tenant == tenant
    assert mailbox.person.kind == User.Kind.PERSON and not mailbox.person.has_usable_password()
    main = Credential.objects.get(mailbox=mailbox)
    assert main.kind == "main" and passwords.verify_main(PASSWORD, main.secret)
    assert (seen.entry.action, seen.entry.tenant, seen.domains) == ("mailbox.created", tenant, {"demo.test"})
    assert seen.entry.after == {"address": "shop@demo.test", "name": "Web shop", "quota_bytes": None}
    info = alias("info@demo.test", "shop@demo.test")
    assert [(each.tenant, each.domain_name, each.local_part) for each in (mailbox, info)] == [
        (tenant, "demo.test", "shop"), (tenant, "demo.test", "info")
    ]


def test_hashed_password_is_taken_as_it_is(domain):
    hashed = hash_password(PASSWORD)
    mailbox = create("shop@demo.test", password=hashed)
    assert Credential.objects.get(mailbox=mailbox).secret == hashed.stored


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("shop", "no @"), ("shop@nowhere.test", "isn't hosted here"), ("@demo.test", "nothing before the @"),
        ("shop+tag@demo.test", "reaches shop@demo.test"), ("a\rb@demo.test", "control"),
        ("shop@alias.test", "use an address in demo.test"),
        ("x" * 65 + "@demo.test", "longer than 64"),
    ],
)
def test_bad_addresses_are_refused_beside_the_field(domain, address, sentence):
    world.domain_alias("alias.test", domain)
    with pytest.raises(ServiceError, match=sentence) as refused:
        create(address)
    assert refused.value.field == "address"
    assert not Mailbox.objects.exists() and not Address.objects.exists() and not AuditEntry.objects.exists()


def test_taken_address_says_by_what_to_its_own_tenant_only(mailbox, shared, tenant, other_tenant):
    with pytest.raises(Taken, match=r"The address shop@demo.test is taken already: it is a mailbox"):
        create("shop@demo.test")
    alias("info@demo.test", "shop@demo.test")
    with pytest.raises(Taken, match=r"The address info@demo.test is taken already: it is an alias"):
        create("info@demo.test")
    create("bob@isp.test", tenant)
    with pytest.raises(Taken, match=r"The address bob@isp.test is taken already\.$"):
        create("bob@isp.test", other_tenant)
    assert not User.objects.filter(kind="person").exclude(mailbox__isnull=False).exists()


def test_tenant_is_named_in_a_shared_domain_and_elsewhere_only_its_own(domain, shared, tenant, other_tenant):
    with pytest.raises(ServiceError, match="name the tenant") as refused:
        create("bob@isp.test")
    assert refused.value.field == "tenant"
    with pytest.raises(ServiceError, match="not a domain of Other") as refused:
        create("bob@demo.test", other_tenant)
    assert refused.value.field == "tenant"
    assert create("bob@demo.test", tenant).address.tenant == tenant
    assert create("bob@isp.test", other_tenant).address.tenant == other_tenant


def test_only_staff_and_named_plans_place_addresses_in_a_shared_domain(shared, tenant):
    member = operations.create_account(email="ann@elsewhere.test", password=PASSWORD, actor=None)
    tenants.create_membership(user=member, tenant=tenant, role="owner", actor=None)
    with pytest.raises(ServiceError, match="given by the provider"):
        create("bob@isp.test", tenant, actor=member)
    domains.change_domain(shared, plans=[tenant.plan], actor=None)
    assert create("bob@isp.test", tenant, actor=member).pk


def test_panel_login_is_no_mailbox_at_the_same_time(tenant):
    domain = domains.create_domain(name="demo.test", tenant=tenant, actor=None)
    operations.create_account(email="boss@demo.test", password=PASSWORD, actor=None)
    domains.verify_domain(domain, actor=None)
    with pytest.raises(Taken, match="login of a panel account"):
        create("boss@demo.test")


def test_nothing_is_made_in_what_is_closed(domain, tenant):
    operations.close(domain, actor=None)
    with pytest.raises(ServiceError, match=r"domain demo.test is closed"):
        create("shop@demo.test")
    operations.restore(domain, actor=None)
    operations.close(tenant, actor=None)
    with pytest.raises(ServiceError, match="tenant Demo is closed"):
        create("shop@demo.test")


def test_password_and_name_are_changed(mailbox, traces):
    seen = traces()
    services.set_password(mailbox, "another horse battery", actor=None)
    services.change_mailbox(mailbox, name="Shop", quota_bytes=10, actor=None)
    assert seen.actions == ["mailbox.password_set", "mailbox.changed"] and seen.domains == {"demo.test"}
    assert passwords.verify_main("another horse battery", Credential.objects.get(mailbox=mailbox).secret)
    with pytest.raises(ServiceError, match="whole number"):
        services.change_mailbox(mailbox, quota_bytes=-1, actor=None)
    with pytest.raises(ServiceError) as refused:
        services.set_password(mailbox, "shop@demo.test", actor=None)
    assert refused.value.field == "password"


def test_plan_bounds_mailboxes_and_aliases(domain, tenant):
    tenants.change_plan(tenant.plan, mailboxes=1, aliases=1, actor=None)
    create("one@demo.test")
    with pytest.raises(ServiceError, match="allows 1 mailboxes; Demo has 1"):
        create("two@demo.test")
    alias("a@demo.test", "one@demo.test")
    with pytest.raises(ServiceError, match="allows 1 aliases"):
        alias("b@demo.test", "one@demo.test")


@pytest.mark.django_db(transaction=True)
def test_parallel_creation_reaches_the_plans_number_and_never_passes_it(standard_plan, in_threads):
    tenants.change_plan(standard_plan, mailboxes=3, actor=None)
    world.domain("demo.test", world.tenant("Demo"))
    hashed = hash_password(PASSWORD)
    results = in_threads(lambda at: create(f"m{at}@demo.test", password=hashed), *range(8))
    assert Mailbox.objects.count() == sum(isinstance(result, Mailbox) for result in results) == 3, results
    assert all(isinstance(result, (Mailbox, ServiceError)) for result in results), results
    assert AuditEntry.objects.filter(action="mailbox.created").count() == 3
    assert DirectoryChange.objects.filter(domain="demo.test").count() == 3


@pytest.mark.django_db(transaction=True)
def test_one_address_is_given_once_in_parallel(standard_plan, in_threads):
    world.domain("demo.test", world.tenant("Demo"))
    hashed = hash_password(PASSWORD)

    def make(kind):
        return create("a@demo.test", password=hashed) if kind else alias("a@demo.test", "x@elsewhere.test")

    results = in_threads(make, 0, 1, 0, 1)
    assert sum(not isinstance(result, Exception) for result in results) == 1, results
    assert sum(isinstance(result, Taken) for result in results) == 3, results
    assert Address.objects.count() == 1
    assert User.objects.count() == Mailbox.objects.count()


# Aliases


def test_alias_leads_to_canonical_targets_each_once(mailbox, traces):
    world.domain("other.test", mailbox.address.tenant)
    seen = traces()
    made = alias("Info@demo.test", "SHOP@demo.test", "bob@Bücher.example", "shop@demo.test", "x@other.test")
    targets = list(made.targets.values_list("target", flat=True))
    assert targets == ["shop@demo.test", "bob@xn--bcher-kva.example", "x@other.test"]
    assert seen.entry.after["targets"] == targets
    # Who may send as the alias changes where its targets are.
    assert seen.domains == {"demo.test", "other.test"}


@pytest.mark.parametrize("targets", [[], ["nobody"], ["a@b.test\r\nRCPT TO:<c@d.test>"], ["@demo.test"]])
def test_bad_targets_are_refused_beside_the_field(domain, targets):
    with pytest.raises(ServiceError) as refused:
        alias("info@demo.test", *targets)
    assert refused.value.field == "targets"
    assert not Alias.objects.exists() and not Address.objects.exists()


def test_too_many_targets_are_refused(domain):
    with pytest.raises(ServiceError, match="100 addresses at most"):
        alias("info@demo.test", *(f"u{at}@elsewhere.test" for at in range(101)))


def test_catch_all_is_for_own_domains(mailbox, shared, tenant):
    made = alias("@demo.test", "shop@demo.test")
    assert made.address.local_part == "" and services.find_alias("@demo.test") == made
    with pytest.raises(ServiceError, match="no catch-all"):
        alias("@isp.test", "shop@demo.test", tenant=tenant)


@pytest.mark.parametrize(
    ("existing", "new", "chain"),
    [
        ([], ("a@demo.test", "a@demo.test"), "a@demo.test → a@demo.test"),
        ([], ("a@demo.test", "A+tag@demo.test"), r"a@demo.test → a\+tag@demo.test → a@demo.test"),
        ([], ("a@demo.test", "a@alias.test"), "a@demo.test → a@alias.test → a@demo.test"),
        ([("b@demo.test", "a@demo.test")], ("a@demo.test", "b@demo.test"), "a@demo.test → b@demo.test → a@demo.test"),
        (
            [("c@demo.test", "a@demo.test"), ("b@demo.test", "x@elsewhere.test", "c@demo.test")],
            ("a@demo.test", "b@demo.test"), "a@demo.test → b@demo.test → c@demo.test → a@demo.test",
        ),
        ([], ("@demo.test", "nobody@demo.test"), r"\*@demo.test → nobody@demo.test → \*@demo.test"),
        ([("b@demo.test", "nobody@demo.test")], ("@demo.test", "b@demo.test"), "b@demo.test → nobody@demo.test"),
    ],
)
def test_loops_are_refused_with_the_chain_named(domain, existing, new, chain):
    world.domain_alias("alias.test", domain)
    for row in existing:
        alias(*row)
    with pytest.raises(ServiceError, match=f"lead back to itself: .*{chain}"):
        alias(*new)
    assert Alias.objects.count() == len(existing)


def test_loop_by_a_change_is_refused_and_nothing_changes(domain):
    first = alias("a@demo.test", "x@elsewhere.test")
    alias("b@demo.test", "a@demo.test")
    with pytest.raises(ServiceError, match="lead back"):
        services.change_alias(first, targets=["b@demo.test"], actor=None)
    assert list(first.targets.values_list("target", flat=True)) == ["x@elsewhere.test"]


def test_chain_through_another_tenants_alias_hides_its_targets(domain, other_tenant):
    world.domain("other.test", other_tenant)
    alias("secret@other.test", "a@demo.test")
    alias("in@other.test", "secret@other.test")
    with pytest.raises(ServiceError) as refused:
        alias("a@demo.test", "in@other.test")
    assert "secret" not in str(refused.value)
    assert "a@demo.test → in@other.test → … → a@demo.test" in str(refused.value)


def test_alias_is_changed_and_deleted_and_its_address_free_again(mailbox, traces):
    made = alias("info@demo.test", "shop@demo.test")
    seen = traces()
    services.change_alias(made, targets=["x@elsewhere.test"], description="Press", actor=None)
    assert seen.entry.before == {"description": "", "targets": ["shop@demo.test"]}
    assert seen.entry.after == {"description": "Press", "targets": ["x@elsewhere.test"]}
    services.delete_alias(made, actor=None)
    assert not Address.objects.filter(local_part="info").exists()
    assert create("info@demo.test").pk
    with pytest.raises(ServiceError, match="no longer here"):
        services.delete_alias(made, actor=None)


# Credentials


def test_app_password_is_shown_once_and_stored_as_a_hash(mailbox, traces):
    seen = traces()
    credential, secret = services.create_credential(mailbox, label="web shop", actor=None)
    assert secret.startswith("ph-app-") and credential.secret == passwords.hash_app(secret)
    assert credential.scopes == ["submission"]
    assert (seen.entry.action, seen.domains) == ("credential.created", {"demo.test"})
    assert secret not in str(seen.entry.after) and credential.secret not in str(seen.entry.after)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scopes": []}, "scopes"), ({"scopes": ["submission", "root"]}, "scopes"), ({"label": "a\nb"}, "label"),
        ({"networks": ["10.0.0.1/8"]}, "networks"), ({"networks": ["home"]}, "networks"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expires_at"),
    ],
)
def test_bad_app_passwords_are_refused_beside_the_field(mailbox, fields, field):
    with pytest.raises(ServiceError) as refused:
        services.create_credential(mailbox, actor=None, **fields)
    assert refused.value.field == field
    assert Credential.objects.count() == 1


def test_app_password_is_changed_frozen_unfrozen_and_revoked(mailbox, traces):
    credential, _ = services.create_credential(mailbox, scopes=["sieve", "imap"], actor=None)
    assert credential.scopes == ["imap", "sieve"]
    seen = traces()
    services.change_credential(credential, networks=["192.0.2.7", "2001:db8::/32"], actor=None)
    assert Credential.objects.get(pk=credential.pk).networks == ["192.0.2.7/32", "2001:db8::/32"]
    with pytest.raises(ServiceError, match="reason"):
        services.freeze_credential(credential, reason=" ", actor=None)
    services.freeze_credential(credential, reason="sent at night", actor=None)
    with pytest.raises(ServiceError, match="frozen already"):
        services.freeze_credential(credential, reason="again", actor=None)
    services.unfreeze_credential(credential, actor=None)
    with pytest.raises(ServiceError, match="is not frozen"):
        services.unfreeze_credential(credential, actor=None)
    services.revoke_credential(credential, actor=None)
    assert seen.actions == ["credential.changed", "credential.frozen", "credential.unfrozen", "credential.revoked"]
    assert Credential.objects.count() == 1


def test_what_somebody_above_froze_stays_frozen_for_those_below(mailbox):
    """The person, the tenant's people and the provider: each freezes over what those below froze."""
    owner = User.objects.create(kind=User.Kind.PANEL, email="owner@letters.test", password="!")
    tenants.create_membership(user=owner, tenant=mailbox.address.tenant, role="owner", actor=None)
    person = mailbox.person
    credential, _ = services.create_credential(mailbox, label="shop", actor=None)
    services.freeze_credential(credential, reason="lost", actor=person)
    with pytest.raises(ServiceError, match="frozen already"):
        services.freeze_credential(credential, reason="mine", actor=person)
    services.freeze_credential(credential, reason="left us", actor=owner)
    with pytest.raises(ServiceError, match="frozen by your organisation"):
        services.unfreeze_credential(credential, actor=person)
    services.freeze_credential(credential, reason="sends spam", actor=None)
    for below in (person, owner):
        with pytest.raises(ServiceError, match="frozen by your provider"):
            services.unfreeze_credential(credential, actor=below)
        with pytest.raises(ServiceError, match="frozen already"):
            services.freeze_credential(credential, reason="mine", actor=below)
    credential.refresh_from_db()
    assert credential.frozen_reason == "sends spam"
    services.unfreeze_credential(credential, actor=None)
    services.freeze_credential(credential, reason="lost", actor=person)
    services.unfreeze_credential(credential, actor=person)


def test_main_password_is_frozen_but_never_revoked(mailbox):
    main = Credential.objects.get(mailbox=mailbox)
    with pytest.raises(ServiceError, match="can't be revoked"):
        services.revoke_credential(main, actor=None)
    services.freeze_credential(main, reason="leaked", actor=None)
    services.set_password(mailbox, "another horse battery", actor=None)
    assert Credential.objects.get(mailbox=mailbox).frozen_reason == "leaked"


def test_closed_mailbox_gets_no_app_password(mailbox, domain):
    operations.close(domain, actor=None)
    with pytest.raises(ServiceError, match=r"domain demo\.test is closed"):
        services.create_credential(mailbox, actor=None)
    operations.restore(domain, actor=None)
    operations.close(mailbox, actor=None)
    mailbox.refresh_from_db()
    assert mailbox.status == Status.CLOSED
    with pytest.raises(ServiceError, match="is closed"):
        services.create_credential(mailbox, actor=None)


@pytest.mark.once("sqlite")
@pytest.mark.django_db
def test_who_did_it_is_kept_in_one_language_whoever_reads_it():
    world.domain("demo.test", world.tenant("Demo"))
    box = world.mailbox("ann@demo.test")
    User.objects.filter(pk=box.person_id).update(name="")
    with translation.override("ja"):
        entry = audit.record(User.objects.get(pk=box.person_id), "mailbox.changed", box, tenant=box.tenant)
    assert entry.actor_name == f"person {box.person_id}"
