"""A plan's numbers hold, whoever makes how much at once and by which door."""

import pytest

from panel.domains import claims
from panel.domains.models import Domain, DomainAlias
from panel.domains.services import create_domain
from panel.mailboxes.importing import import_mailboxes
from panel.mailboxes.models import Alias, Credential, Mailbox
from panel.mailboxes.services import change_mailbox, create_alias, create_credential, create_mailbox
from panel.operations.customers import create_customer
from panel.operations.services import create_account
from panel.tenants.changes import HashedPassword, ServiceError
from panel.tenants.models import Plan, Tenant, User
from tests.support import world

GB = 1024**3
AT_ONCE = 6
HASH = HashedPassword("argon2$x")


@pytest.fixture
def house(transactional_db, standard_plan):
    """Tenant Demo with demo.test and a mailbox of 1 GB in it."""
    tenant = world.tenant("Demo")
    world.domain("demo.test", tenant)
    world.mailbox("shop@demo.test", quota_bytes=GB)
    return tenant


def allow(**numbers):
    Plan.objects.update(**numbers)


def total_quota():
    return sum(quota or 0 for quota in Mailbox.objects.values_list("quota_bytes", flat=True))


def domain(number):
    create_domain(name=f"d{number}.test", tenant=Tenant.objects.get(), actor=None)


def mailbox(number):
    create_mailbox(address=f"m{number}@demo.test", password=HASH, quota_bytes=GB, actor=None)


def alias(number):
    create_alias(address=f"a{number}@demo.test", targets=["x@elsewhere.test"], actor=None)


def credential(number):
    create_credential(Mailbox.objects.get(address__local_part="shop"), label=str(number), actor=None)


def customer(number):
    create_customer(
        Tenant.objects.get(parent=None), name=f"C{number}", plan=Plan.objects.get(), owner=f"o{number}@elsewhere.test",
        link=lambda token: f"/{token}/", actor=User.objects.get(email="boss@elsewhere.test"),
    )


def other_name(number):
    claims.claim_domain_alias(name=f"n{number}.test", domain=Domain.objects.get(), actor=None)


def larger_quota(number):
    change_mailbox(Mailbox.objects.get(address__local_part=f"q{number}"), quota_bytes=2 * GB, actor=None)


@pytest.mark.parametrize(("numbers", "make", "count", "words"), [
    ({"domains": 3}, domain, Domain.objects.count, "The plan Standard allows 3 domains; Demo has 3."),
    ({"mailboxes": 3}, mailbox, Mailbox.objects.count, "The plan Standard allows 3 mailboxes; Demo has 3."),
    ({"aliases": 3}, alias, Alias.objects.count, "The plan Standard allows 3 aliases; Demo has 3."),
    ({"credentials": 3}, credential, lambda: Credential.objects.filter(kind="app").count(),
     "The plan Standard allows 3 app passwords; Demo has 3."),
    ({"storage_bytes": 3 * GB}, mailbox, lambda: total_quota() // GB,
     "allows 3 GB of storage; the quotas of Demo take 3 GB of it, and 1 GB more are asked for."),
    ({"customers": 3, "for_customers": True}, customer, lambda: Tenant.objects.exclude(parent=None).count(),
     "The plan Standard allows 3 customers; Demo has 3."),
    ({}, other_name, DomainAlias.objects.count, "demo.test has 3 aliases, and no more fit."),
], ids=["domains", "mailboxes", "aliases", "credentials", "storage", "customers", "other names"])
def test_of_many_who_make_at_once_as_many_succeed_as_the_plan_allows(
    house, in_threads, numbers, make, count, words, monkeypatch
):
    monkeypatch.setattr(claims, "MOST_ALIASES", 3)  # which is no plan's number
    create_account(email="boss@elsewhere.test", password=HASH, actor=None)
    allow(**numbers)
    before = count()
    results = in_threads(make, *range(AT_ONCE))
    assert count() == 3
    assert results.count(None) == 3 - before
    refused = [one for one in results if one is not None]
    assert all(isinstance(one, ServiceError) and words in str(one) for one in refused), results


def test_quotas_that_grow_at_once_stay_within_the_storage(house, in_threads):
    for number in range(AT_ONCE):
        world.mailbox(f"q{number}@demo.test", quota_bytes=GB)
    allow(storage_bytes=(AT_ONCE + 3) * GB)  # what there is, and two more
    results = in_threads(larger_quota, *range(AT_ONCE))
    assert results.count(None) == 2 and total_quota() == (AT_ONCE + 3) * GB, results
    change_mailbox(Mailbox.objects.get(address__local_part="shop"), quota_bytes=GB // 2, actor=None)
    with pytest.raises(ServiceError, match="give the mailbox a quota"):
        change_mailbox(Mailbox.objects.get(address__local_part="shop"), quota_bytes=None, actor=None)


def test_an_import_beside_single_ones_is_whole_or_not_at_all(house, in_threads, tmp_path):
    allow(mailboxes=5)
    path = tmp_path / "people.csv"
    hashed = "$2y$05$abcdefghijklmnopqrstuuhI5OkmtXeU4o4O7kWnJ5ep/uT8Fi7Zu"
    rows = [f"i{number}@demo.test,{hashed},1 GB" for number in range(3)]
    path.write_text("\n".join(["address,hash,quota", *rows]))

    def act(number):
        if number == 0:
            import_mailboxes(path, Tenant.objects.get(), actor=None)
        else:
            mailbox(number)

    results = in_threads(act, *range(4))
    imported = Mailbox.objects.filter(address__local_part__startswith="i").count()
    single = Mailbox.objects.filter(address__local_part__startswith="m").count()
    assert imported in (0, 3) and (imported == 3) == (results[0] is None)
    assert single == results[1:].count(None) == (1 if imported else 3), results
    Mailbox.objects.filter(address__local_part__startswith="i").update(status=3)  # a closed one still counts
    allow(mailboxes=Mailbox.objects.count() + 2)
    files = [tmp_path / "j.csv", tmp_path / "k.csv"]
    for each in files:
        each.write_text(f"address,hash\n{each.stem}1@demo.test,{hashed}\n{each.stem}2@demo.test,{hashed}\n")
    results = in_threads(lambda file: import_mailboxes(file, Tenant.objects.get(), actor=None), *files)
    assert sum("allows" in str(each) for each in results) == 1, results
    assert Mailbox.objects.filter(address__local_part__in=("j1", "j2", "k1", "k2")).count() == 2


def test_each_tenants_plan_counts_what_is_its_own(house):
    child = world.tenant("Child", parent=house)
    world.domain("child.test", child)
    allow(mailboxes=1)
    with pytest.raises(ServiceError, match=r"allows 1 mailboxes; Demo has 1\."):
        mailbox(1)
    create_mailbox(address="a@child.test", password=HASH, quota_bytes=GB, actor=None)
    with pytest.raises(ServiceError, match=r"allows 1 mailboxes; Child has 1\."):
        create_mailbox(address="b@child.test", password=HASH, quota_bytes=GB, actor=None)


def test_a_smaller_plan_takes_nothing_away(house):
    allow(mailboxes=0, storage_bytes=GB // 2)
    shop = Mailbox.objects.get()
    change_mailbox(shop, name="Shop", actor=None)
    change_mailbox(shop, quota_bytes=GB // 4, actor=None)
    with pytest.raises(ServiceError, match="of storage; the quotas of Demo take nothing of it, and 1 GB more"):
        change_mailbox(shop, quota_bytes=GB, actor=None)
