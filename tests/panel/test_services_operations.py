"""Suspend, resume, close, restore: conditional, once each, and each for itself."""

from datetime import timedelta

import pytest
from django.utils import timezone

from panel.domains.services import remove_unproved
from panel.mailboxes.models import Mailbox
from panel.operations import services
from panel.operations.services import AlreadySuspended, NotSuspended, change_account, create_account
from panel.rules.status import Status, strictest
from panel.sending.models import Hold, Recipient
from panel.tenants.changes import ServiceError
from panel.tenants.decided import is_held
from panel.tenants.models import AuditEntry, DirectoryChange, User
from panel.tenants.services import (
    close_account,
    create_membership,
    delete_account,
    reopen_account,
    set_account_password,
)
from panel.tenants.sign_in import second_factor, sessions
from tests.support import queue, world
from tests.support.authenticator import code_of


def status(row):
    row.refresh_from_db()
    return Status(row.status)


def test_suspended_mailbox_has_reason_entry_and_change(mailbox, tenant, traces):
    seen = traces()
    services.suspend(mailbox, reason="leaked", actor=None, ip="192.0.2.1")
    assert status(mailbox) is Status.SUSPENDED and mailbox.status_reason == "leaked"
    assert (seen.entry.action, seen.entry.tenant, seen.entry.reason) == ("mailbox.suspended", tenant, "leaked")
    assert (seen.entry.before["status"], seen.entry.after["status"]) == ("ACTIVE", "SUSPENDED")
    assert seen.domains == {"demo.test"}


def test_suspending_twice_leaves_one_entry(mailbox, traces):
    services.suspend(mailbox, reason="leaked", actor=None)
    seen = traces()
    with pytest.raises(AlreadySuspended, match=r"The mailbox shop@demo.test is suspended already"):
        services.suspend(mailbox, reason="leaked", actor=None)
    with pytest.raises(AlreadySuspended):
        services.suspend(mailbox, reason="leaked", sending_only=True, actor=None)
    assert seen.nothing and status(mailbox) is Status.SUSPENDED


def test_sending_alone_is_stopped_and_then_all(mailbox):
    services.suspend(mailbox, reason="list", sending_only=True, actor=None)
    assert status(mailbox) is Status.NO_SENDING
    with pytest.raises(AlreadySuspended, match="no sending already"):
        services.suspend(mailbox, reason="list", sending_only=True, actor=None)
    services.suspend(mailbox, reason="worse", actor=None)
    assert status(mailbox) is Status.SUSPENDED


def test_suspending_needs_a_reason(mailbox):
    with pytest.raises(ServiceError) as refused:
        services.suspend(mailbox, reason=" ", actor=None)
    assert refused.value.field == "reason" and status(mailbox) is Status.ACTIVE


def test_resuming_one_never_resumes_another(mailbox, domain, tenant):
    rows = (mailbox, domain, tenant)
    for row in rows:
        services.suspend(row, reason="x", actor=None)
    services.resume(tenant, actor=None)
    assert [status(row) for row in rows] == [Status.SUSPENDED, Status.SUSPENDED, Status.ACTIVE]
    assert strictest(status(row) for row in rows) is Status.SUSPENDED
    services.resume(mailbox, actor=None)
    assert [status(row) for row in rows] == [Status.ACTIVE, Status.SUSPENDED, Status.ACTIVE]
    assert strictest(status(row) for row in rows) is Status.SUSPENDED
    with pytest.raises(NotSuspended, match="The tenant Demo is active, not suspended"):
        services.resume(tenant, actor=None)


def test_domain_and_tenant_tell_each_domain_concerned(domain, tenant, shared, traces):
    world.domain_alias("alias.test", domain)
    world.mailbox("bob@isp.test", tenant)
    seen = traces()
    services.suspend(domain, reason="x", actor=None)
    assert seen.domains == {"demo.test", "alias.test"}
    seen = traces()
    services.suspend(tenant, reason="x", actor=None)
    assert seen.domains == {"demo.test", "isp.test"}
    seen = traces()
    services.suspend(shared, reason="x", actor=None)
    assert seen.domains == {"isp.test"} and seen.entry.tenant is None


def test_closed_is_not_resumed_but_restored_to_what_it_was(mailbox):
    services.suspend(mailbox, reason="leaked", actor=None)
    services.close(mailbox, reason="left us", actor=None)
    assert status(mailbox) is Status.CLOSED
    for refused in (
        lambda: services.resume(mailbox, actor=None),
        lambda: services.suspend(mailbox, reason="x", actor=None),
        lambda: services.close(mailbox, actor=None),
    ):
        with pytest.raises(ServiceError):
            refused()
    services.restore(mailbox, actor=None)
    assert status(mailbox) is Status.SUSPENDED and mailbox.status_reason == "leaked"
    with pytest.raises(ServiceError, match="not closed"):
        services.restore(mailbox, actor=None)
    services.resume(mailbox, actor=None)
    services.close(mailbox, actor=None)
    services.restore(mailbox, actor=None)
    assert status(mailbox) is Status.ACTIVE


def test_resume_makes_what_waits_of_that_tenant_due(mailbox, tenant, other_tenant):
    later = timezone.now() + timedelta(hours=5)
    mine = queue.waiting(tenant, "a@elsewhere.test", holds=Hold.SUSPENDED, due_at=later)
    twice = queue.waiting(tenant, "b@elsewhere.test", holds=Hold.SUSPENDED | Hold.UNDELIVERABLE, due_at=later)
    free = queue.waiting(tenant, "c@elsewhere.test", due_at=later)
    foreign = queue.waiting(other_tenant, "d@elsewhere.test", holds=Hold.SUSPENDED, due_at=later)
    services.suspend(mailbox, reason="x", actor=None)
    services.resume(mailbox, actor=None)
    for row in (mine, twice, free, foreign):
        row.refresh_from_db()
    assert (mine.holds, twice.holds, foreign.holds) == (0, Hold.UNDELIVERABLE, Hold.SUSPENDED)
    assert mine.due_at <= timezone.now() and free.due_at == later and foreign.due_at == later


def test_resumed_shared_domain_makes_all_its_tenants_due(shared, tenant, other_tenant):
    world.mailbox("bob@isp.test", tenant)
    mine = queue.waiting(tenant, "a@elsewhere.test", holds=Hold.SUSPENDED)
    foreign = queue.waiting(other_tenant, "b@elsewhere.test", holds=Hold.SUSPENDED)
    services.suspend(shared, reason="x", actor=None)
    services.resume(shared, actor=None)
    assert Recipient.objects.get(pk=mine.pk).holds == 0
    assert Recipient.objects.get(pk=foreign.pk).holds == Hold.SUSPENDED


def test_nobody_undoes_or_closes_what_somebody_above_stopped(tenant, django_assert_num_queries):
    top = world.tenant("Top")
    above = world.tenant("Above", parent=top)
    type(tenant).objects.filter(pk=tenant.pk).update(parent=above)
    tenant.refresh_from_db()
    rows = [tenant, world.domain("demo.test", tenant), world.mailbox("shop@demo.test")]
    typed = world.domain("typed.test", tenant, proof="pending")

    def account(name, *members, **fields):
        made = create_account(email=f"{name}@people.example", password=world.PASSWORD, actor=None, **fields)
        for one, role in members:
            create_membership(user=made, tenant=one, role=role, actor=None)
        return made

    own = account("own", (tenant, "owner"), (above, "viewer"))  # only looks on from above
    other = account("other", (tenant, "admin"))
    reseller, over = account("reseller", (above, "owner")), account("over", (top, "admin"))
    provider = account("staff", provider_role="operator")
    ranks = [own, reseller, over, provider]
    for row in rows:
        for height, higher in enumerate(ranks):
            words = "by your provider: ask there" if higher is provider else "by somebody above it: ask your provider"
            for act, undo in ((services.suspend, services.resume), (services.close, services.restore)):
                act(row, reason="x", actor=higher)
                for lower in ranks[:height]:
                    with django_assert_num_queries(1 if higher is provider else 2):
                        assert is_held(row, lower)
                    for refused in (undo, services.close) if act is services.suspend else (undo,):
                        with pytest.raises(ServiceError, match=words):
                            refused(row, actor=lower)
                assert not any(is_held(row, same) for same in (*ranks[height:], *[other] * (height == 0)))
                undo(row, actor=other if higher is own else higher)
                assert status(row) is Status.ACTIVE and not is_held(row, own)
        # Whoever stands above takes over what was suspended below, never the other way.
        for actor in (own, reseller, provider):
            services.suspend(row, reason="mine", actor=actor)
        for actor in (own, reseller, provider):
            with pytest.raises(AlreadySuspended):
                services.suspend(row, reason="mine again", actor=actor)
        assert is_held(row, over)
        services.resume(row, actor=provider)
        # What is stopped further below stays theirs who stopped it first.
        services.suspend(row, reason="x", sending_only=True, actor=reseller)
        services.suspend(row, reason="x", actor=own)
        assert status(row) is Status.SUSPENDED and is_held(row, own)
        services.resume(row, actor=reseller)
        # Who has left may have been anybody: it isn't the tenant's own people's to undo.
        gone = account(f"gone-{row._meta.model_name}")
        services.close(row, actor=gone)
        assert is_held(row, own) and not is_held(row, reseller)
        services.restore(row, actor=reseller)
    services.suspend(typed, reason="phishing", actor=reseller)
    with pytest.raises(ServiceError, match="by somebody above it"):
        remove_unproved(typed, actor=own)
    remove_unproved(typed, actor=reseller)


@pytest.mark.django_db(transaction=True)
def test_of_many_who_suspend_at_once_one_does(standard_plan, in_threads):
    world.domain("demo.test", world.tenant("Demo"))
    pk = world.mailbox("shop@demo.test").pk

    def suspend(at):
        services.suspend(Mailbox.objects.get(pk=pk), reason=f"reason {at}", actor=None)

    results = in_threads(suspend, *range(6))
    assert results.count(None) == 1 and sum(isinstance(one, AlreadySuspended) for one in results) == 5, results
    assert AuditEntry.objects.count() == DirectoryChange.objects.count() == 1
    assert Mailbox.objects.get().status_reason == AuditEntry.objects.get().reason


@pytest.mark.django_db(transaction=True)
def test_suspend_and_resume_at_once_leave_a_status_that_the_log_tells(standard_plan, in_threads):
    tenant = world.tenant("Demo")

    def move(at):
        if at % 2:
            services.suspend(type(tenant).objects.get(pk=tenant.pk), reason="x", actor=None)
        else:
            services.resume(type(tenant).objects.get(pk=tenant.pk), actor=None)

    results = in_threads(move, *range(6))
    assert all(one is None or isinstance(one, (AlreadySuspended, NotSuspended)) for one in results), results
    entries = list(AuditEntry.objects.order_by("pk"))
    assert len(entries) == results.count(None)
    assert status(tenant).name == entries[-1].after["status"]
    # Each entry begins where the one before ended.
    told = ["ACTIVE", *(entry.after["status"] for entry in entries)]
    assert [entry.before["status"] for entry in entries] == told[:-1]


def test_resuming_a_parent_lets_the_queue_of_those_below_go(tenant):
    child = world.tenant("Child", parent=tenant)
    below = world.tenant("Below", parent=child)
    held = [queue.waiting(one, "x@elsewhere.test", holds=Hold.SUSPENDED) for one in (tenant, child, below)]
    other = queue.waiting(world.tenant("Other"), "x@elsewhere.test", holds=Hold.SUSPENDED)
    services.suspend(tenant, reason="unpaid", actor=None)
    services.resume(tenant, actor=None)
    for one in held:
        one.refresh_from_db()
        assert one.holds == 0
    other.refresh_from_db()
    assert other.holds == Hold.SUSPENDED


def test_only_an_owner_touches_accounts_with_a_role_at_the_provider(db):
    def made(role: str) -> User:
        return create_account(
            email=f"{role or 'member'}@provider.example", password=world.PASSWORD, provider_role=role, actor=None
        )

    owner, operator, support, member = (made(role) for role in ("owner", "operator", "support", ""))
    second_factor.add(owner, secret := second_factor.new_secret(), code_of(secret))
    acts = [
        (change_account, owner, {"email": "x@y.example"}), (change_account, member, {"provider_role": "support"}),
        (set_account_password, owner, {"password": world.PASSWORD}), (close_account, owner, {}),
        (reopen_account, owner, {}), (delete_account, owner, {}), (second_factor.remove, owner, {}),
        (sessions.end_all, owner, {}),
    ]
    for actor in (operator, support, member):
        for act, account, values in (*acts, (change_account, actor, {"provider_role": "owner"})):
            with pytest.raises(ServiceError, match="Only an owner"):
                act(account, **values, actor=actor)
        with pytest.raises(ServiceError, match="Only an owner"):
            create_account(email="x@y.example", password=world.PASSWORD, provider_role="support", actor=actor)
    assert change_account(operator, name="Opal", actor=operator).name == "Opal", "the own account is"
    assert change_account(operator, provider_role="owner", actor=owner).provider_role == "owner"
