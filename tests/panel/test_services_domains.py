"""Domains and domain aliases: names, proof, who may have which."""

import dataclasses

import pytest

from panel.domains import services
from panel.domains.models import Domain, DomainAlias, Proof
from panel.environment import Listen, Store
from panel.tenants import services as tenants
from panel.tenants.changes import ServiceError
from tests.support import world


def create(name, tenant=None, **fields):
    return services.create_domain(name=name, tenant=tenant, actor=None, **fields)


def test_domain_is_pending_until_verified(tenant, traces):
    seen = traces()
    domain = create("Demo.Test.", tenant)
    assert (domain.name, domain.proof, domain.kind) == ("demo.test", "pending", "own")
    assert (seen.entry.action, seen.entry.tenant, seen.domains) == ("domain.created", tenant, {"demo.test"})
    seen = traces()
    services.verify_domain(domain, actor=None)
    domain.refresh_from_db()
    assert (domain.proof, domain.proved_by) == ("proved", "checked by us")
    assert (seen.entry.action, seen.domains) == ("domain.verified", {"demo.test"})
    with pytest.raises(ServiceError, match="proved already"):
        services.verify_domain(domain, actor=None)


def test_verified_says_that_we_checked(tenant, traces):
    seen = traces()
    assert create("demo.test", tenant, verified=True).proof == Proof.PROVED
    assert seen.entry.after["proved_by"] == "checked by us"


def test_international_name_is_stored_in_a_labels(tenant):
    assert create("bücher.example", tenant).name == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "name", ["", "localhost", "a..b", "-a.test", "a_b.test", "[192.0.2.1]", "x@demo.test", "a\nb.test"]
)
def test_what_is_no_domain_is_refused_beside_the_name(tenant, name):
    with pytest.raises(ServiceError) as refused:
        create(name, tenant)
    assert refused.value.field == "name"


def test_name_is_given_once_over_domains_and_aliases(tenant, other_tenant, domain):
    services.create_domain_alias(name="alias.test", domain=domain, actor=None)
    for name, what in (("demo.test", "it is a domain"), ("alias.test", "it is a domain alias")):
        with pytest.raises(ServiceError, match=f"The name {name} is taken already: {what}"):
            create(name, other_tenant)
        with pytest.raises(ServiceError, match=f"The name {name} is taken already: {what}"):
            services.create_domain_alias(name=name, domain=domain, actor=None)


@pytest.mark.parametrize("name", ["mail.demo.test", "a.b.demo.test"])
def test_name_under_another_tenants_is_refused(domain, other_tenant, name):
    with pytest.raises(ServiceError, match=r"lies under demo.test"):
        create(name, other_tenant)
    with pytest.raises(ServiceError, match=r"lies under demo.test"):
        create(name, other_tenant, verified=True)
    with pytest.raises(ServiceError, match=r"lies under demo.test"):
        create(name)
    assert create(name, domain.tenant).pk


def test_name_over_another_tenants_is_refused(tenant, other_tenant):
    create("mail.demo.test", tenant)
    with pytest.raises(ServiceError, match=r"lies over mail.demo.test"):
        create("demo.test", other_tenant)
    assert create("notdemo.test", other_tenant).pk
    assert create("demo.test", tenant).pk


def test_name_near_a_foreign_alias_or_shared_domain_is_refused(domain, shared, other_tenant):
    services.create_domain_alias(name="alias.test", domain=domain, actor=None)
    for name in ("mail.alias.test", "mail.isp.test"):
        with pytest.raises(ServiceError, match="lies under"):
            create(name, other_tenant)


def test_who_merely_typed_a_name_keeps_a_checked_owner_out_nowhere(tenant, other_tenant):
    squatted = create("example.test", other_tenant)
    domain = create("mail.example.test", tenant, verified=True)
    assert domain.proof == Proof.PROVED
    with pytest.raises(ServiceError, match=r"lies over mail.example.test"):
        services.verify_domain(squatted, actor=None)


def test_own_host_name_is_only_for_the_checked(tenant, settings):
    name = settings.ENVIRONMENT.hostname
    with pytest.raises(ServiceError, match="this server's own name"):
        create(name, tenant)
    assert create(name, tenant, verified=True).pk


def test_shared_domain_has_no_tenant_but_plans(db, traces):
    plan = tenants.create_plan(name="Private", actor=None)
    shared = create("isp.test", verified=True, plans=[plan])
    assert (shared.kind, shared.tenant, list(shared.plans.all())) == ("shared", None, [plan])
    seen = traces()
    services.change_domain(shared, plans=[], actor=None)
    assert not shared.plans.exists()
    assert (seen.entry.before, seen.domains) == ({"plans": ["Private"]}, {"isp.test"})


def test_store_is_set_when_there_is_one(domain, traces, settings):
    with pytest.raises(ServiceError, match="POSTHOUSE_STORE=maildir,lmtp:") as refused:
        services.change_domain(domain, store="lmtp", actor=None)
    assert refused.value.field == "store"
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, store=Store("maildir", Listen("127.0.0.1", 24)))
    seen = traces()
    services.change_domain(domain, store="lmtp", actor=None)
    domain.refresh_from_db()
    assert (domain.store, seen.entry.before, seen.domains) == ("lmtp", {"store": ""}, {"demo.test"})
    with pytest.raises(ServiceError, match="write one of maildir, lmtp"):
        services.change_domain(domain, store="mbox", actor=None)
    settings.ENVIRONMENT = dataclasses.replace(settings.ENVIRONMENT, store=Store("lmtp", Listen("127.0.0.1", 24)))
    services.change_domain(domain, store="", actor=None)
    domain.refresh_from_db()
    assert domain.store == ""


def test_own_domain_has_no_plans(domain):
    with pytest.raises(ServiceError, match="Only a shared domain"):
        services.change_domain(domain, plans=[domain.tenant.plan], actor=None)


def test_only_an_empty_domain_is_deleted(domain, traces):
    alias = services.create_domain_alias(name="alias.test", domain=domain, actor=None)
    world.mailbox("shop@demo.test")
    with pytest.raises(ServiceError, match="still has 1 addresses"):
        services.delete_domain(domain, actor=None)
    seen = traces()
    services.delete_domain_alias(alias, actor=None)
    assert seen.domains == {"alias.test", "demo.test"}
    assert not DomainAlias.objects.exists()
    empty = create("empty.test", domain.tenant)
    seen = traces()
    services.delete_domain(empty, actor=None)
    assert not Domain.objects.filter(name="empty.test").exists()
    assert (seen.actions, seen.domains) == (["domain.deleted"], {"empty.test"})


def test_domain_alias_is_proved_apart(domain, traces):
    alias = services.create_domain_alias(name="alias.test", domain=domain, actor=None)
    assert alias.proof == Proof.PENDING
    seen = traces()
    services.verify_domain_alias(alias, actor=None)
    assert seen.domains == {"alias.test", "demo.test"}
    assert DomainAlias.objects.get().proof == Proof.PROVED


def test_plan_bounds_the_domains(tenant):
    tenants.change_plan(tenant.plan, domains=1, actor=None)
    create("one.test", tenant)
    with pytest.raises(ServiceError, match=r"The plan Standard allows 1 domains; Demo has 1\. Choose a larger plan"):
        create("two.test", tenant)


@pytest.mark.django_db(transaction=True)
def test_parallel_claims_of_neighbours_leave_one(standard_plan, in_threads):
    one, two = world.tenant("One"), world.tenant("Two")
    results = in_threads(lambda claim: create(*claim), ("a.race.test", one), ("race.test", two))
    assert sum(isinstance(result, Domain) for result in results) == 1, results
    assert Domain.objects.count() == 1
