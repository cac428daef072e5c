"""Closing with a grace period: undone within it, removed with all that it held after it, a step at a time."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from django.utils import timezone

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import (
    Address,
    Alias,
    BlockEntry,
    Credential,
    Mailbox,
    MailboxUsage,
    MailRules,
    VacationAnswer,
)
from panel.mailboxes.services import create_mailbox
from panel.operations import closing, services
from panel.rules.status import Status
from panel.sending.models import Hold, Recipient
from panel.tenants.changes import AlreadySo, ServiceError
from panel.tenants.models import AuditEntry, Tenant, User
from tests.support import queue, world

PASSWORD = "an unusual password"


@pytest.fixture
def mail(tmp_path: Path) -> Path:
    return tmp_path / "mail"


def letter(mail: Path, mailbox: Mailbox) -> Path:
    """A message in the mailbox's folder."""
    folder = mail / mailbox.opaque_id[:2] / mailbox.opaque_id / "Maildir" / "new"
    folder.mkdir(parents=True)
    (folder / "1.R1.host,S=3").write_bytes(b"hi\n")
    return folder.parent.parent


def past_grace(*rows) -> None:
    """As if they had been closed long ago."""
    for row in rows:
        if Status(row.status) is not Status.CLOSED:
            services.close(row, reason="left us", actor=None)
        type(row).objects.filter(pk=row.pk).update(grace_ends_at=timezone.now() - timedelta(hours=1))


def removed(mail: Path) -> list[str]:
    step = closing.end_grace(timezone.now(), mail)
    assert step.failed == []
    return step.removed


@pytest.mark.parametrize("kind", ["mailbox", "domain", "tenant"])
def test_closing_tells_until_when_it_can_be_undone(kind, mailbox, domain, tenant, traces, settings):
    row = {"mailbox": mailbox, "domain": domain, "tenant": tenant}[kind]
    seen = traces()
    services.close(row, reason="left us", actor=None)
    row.refresh_from_db()
    days = settings.ENVIRONMENT.grace_days
    assert timedelta(days=days - 1) < row.grace_ends_at - timezone.now() <= timedelta(days=days)
    assert seen.entry.after == {"status": "CLOSED", "can be restored until": row.grace_ends_at.isoformat()}
    with pytest.raises(AlreadySo, match="closed already"):
        services.close(row, reason="again", actor=None)
    services.restore(row, reason="came back", actor=None)
    row.refresh_from_db()
    assert (row.status, row.status_reason, row.grace_ends_at) == (Status.ACTIVE, "", None)


def test_restoring_one_never_restores_another(mailbox, domain, tenant):
    rows = (mailbox, domain, tenant)
    for row in rows:
        services.close(row, reason="x", actor=None)
    services.restore(tenant, actor=None)
    for row in rows:
        row.refresh_from_db()
    assert [Status(row.status) for row in rows] == [Status.CLOSED, Status.CLOSED, Status.ACTIVE]


def test_restoring_makes_what_waits_due(mailbox, tenant):
    services.close(mailbox, reason="x", actor=None)
    later = timezone.now() + timedelta(hours=5)
    waiting = queue.waiting(tenant, "a@elsewhere.test", holds=Hold.SUSPENDED, due_at=later)
    services.restore(mailbox, actor=None)
    waiting.refresh_from_db()
    assert waiting.holds == 0 and waiting.due_at <= timezone.now()


def test_after_its_grace_period_it_is_not_restored(mailbox):
    past_grace(mailbox)
    with pytest.raises(ServiceError, match=r"mailbox shop@demo\.test can't be restored any more: its grace period end"):
        services.restore(mailbox, actor=None)
    mailbox.refresh_from_db()
    assert mailbox.status == Status.CLOSED


def test_within_the_grace_period_nothing_is_removed(mailbox, mail):
    folder = letter(mail, mailbox)
    services.close(mailbox, reason="left us", actor=None)
    assert removed(mail) == [] and folder.exists()
    # Closed before there was a grace period: nobody was told that it would go.
    Mailbox.objects.update(grace_ends_at=None)
    assert removed(mail) == [] and Mailbox.objects.exists()


def test_a_mailbox_goes_with_its_mail_and_its_address_is_free_again(mailbox, tenant, mail, traces):
    folder, person = letter(mail, mailbox), mailbox.person_id
    other = letter(mail, world.mailbox("office@demo.test"))
    world.app_password(mailbox)
    world.limit(mailbox, hour=5)
    past_grace(mailbox)
    seen = traces()
    assert removed(mail) == ["the mailbox shop@demo.test"]
    assert not folder.exists() and other.exists()
    assert not Credential.objects.filter(mailbox=mailbox).exists() and not User.objects.filter(pk=person).exists()
    assert (seen.entry.action, seen.entry.actor_name) == ("mailbox.removed", "end of the grace period")
    assert seen.entry.tenant == tenant and seen.domains == {"demo.test"}
    create_mailbox(address="shop@demo.test", password=PASSWORD, actor=None)
    assert removed(mail) == []


def test_what_it_has_in_the_queue_goes_first(mailbox, tenant, mail):
    letter(mail, mailbox)
    credential = mailbox.credentials.get()
    later = timezone.now() + timedelta(hours=5)
    held = queue.recipient(
        queue.message(tenant, credential=credential), "a@elsewhere.test", state="waiting",
        holds=Hold.SUSPENDED | Hold.UNDELIVERABLE, due_at=later,
    )
    again = queue.recipient(
        queue.message(tenant, credential=credential), "b@elsewhere.test", state="waiting", due_at=later
    )
    of_another = queue.recipient(
        queue.message(tenant, reverse_path="office@demo.test"), "c@elsewhere.test", state="waiting",
        holds=Hold.SUSPENDED, due_at=later,
    )
    past_grace(mailbox)
    assert removed(mail) == [] and removed(mail) == []
    for row in (held, again, of_another):
        row.refresh_from_db()
    assert held.holds == 0 and max(held.due_at, again.due_at) <= timezone.now()
    assert of_another.holds == Hold.SUSPENDED
    # As the mailserver's queue settles them.
    Recipient.objects.filter(pk__in=[held.pk, again.pk]).update(state="failed")
    assert removed(mail) == ["the mailbox shop@demo.test"]


def test_a_domain_goes_with_all_that_is_in_it(domain, tenant, other_tenant, mailbox, mail):
    folder = letter(mail, mailbox)
    world.alias("info@demo.test", "shop@demo.test", "x@elsewhere.test")
    world.domain_alias("alias.test", domain)
    kept = world.mailbox("ann@kept.test", world.domain("kept.test", tenant).tenant)
    past_grace(domain)
    assert removed(mail) == ["the domain demo.test"]
    assert not folder.exists() and list(Mailbox.objects.all()) == [kept]
    assert list(Domain.objects.values_list("name", flat=True)) == ["kept.test"]
    assert not Alias.objects.exists() and not DomainAlias.objects.exists() and Address.objects.count() == 1
    actions = set(AuditEntry.objects.filter(actor_name=closing.BY).values_list("action", flat=True))
    assert actions == {"mailbox.removed", "alias.removed", "domain.removed"}


def test_a_tenant_goes_with_what_it_holds_in_shared_domains_too(tenant, other_tenant, mailbox, shared, mail):
    mine = letter(mail, world.mailbox("ann@isp.test", tenant))
    theirs = letter(mail, world.mailbox("ben@isp.test", other_tenant))
    past_grace(tenant)
    assert removed(mail) == ["the tenant Demo"]
    assert not mine.exists() and theirs.exists()
    assert list(Tenant.objects.all()) == [other_tenant] and list(Domain.objects.all()) == [shared]
    # Who reads the log of what was still sees what it was.
    assert AuditEntry.objects.filter(action="tenant.closed", subject_name="Demo").exists()


def test_a_tenant_with_others_below_it_stays_until_they_are_gone(tenant, mailbox, mail):
    child = world.tenant("Child", parent=tenant)
    childs = world.mailbox("ann@child.test", world.domain("child.test", child).tenant)
    past_grace(tenant)
    assert removed(mail) == []
    assert Tenant.objects.filter(pk=tenant.pk).exists() and not Mailbox.objects.filter(pk=mailbox.pk).exists()
    assert Mailbox.objects.filter(pk=childs.pk).exists()
    Tenant.objects.filter(pk=child.pk).update(parent=None)
    assert removed(mail) == ["the tenant Demo"]


def test_a_step_is_bounded_and_the_next_goes_on(domain, mail, monkeypatch):
    monkeypatch.setattr(closing, "Step", partial(closing.Step, mailboxes_left=2, files_left=3))
    boxes = [world.mailbox(f"m{number}@demo.test") for number in range(3)]
    folder = letter(mail, boxes[0])
    for number in range(4):
        (folder / "Maildir" / "new" / str(number)).write_bytes(b"x")
    past_grace(domain)
    assert removed(mail) == [] and folder.exists() and Mailbox.objects.count() == 3
    assert removed(mail) == [] and Mailbox.objects.count() == 1
    assert removed(mail) == ["the domain demo.test"] and not folder.exists()


def test_what_can_not_be_removed_is_told_and_keeps_nobody_else_waiting(mailbox, mail, monkeypatch):
    other = world.mailbox("office@demo.test")
    past_grace(mailbox, other)
    remove = closing._remove_mail

    def fail(opaque_id, step, folder):
        if opaque_id == mailbox.opaque_id:
            raise PermissionError("not ours")
        return remove(opaque_id, step, folder)

    monkeypatch.setattr(closing, "_remove_mail", fail)
    step = closing.end_grace(timezone.now(), mail)
    assert step.removed == ["the mailbox office@demo.test"]
    assert step.failed == [("the mailbox shop@demo.test", "not ours")]
    assert Mailbox.objects.get() == mailbox


@pytest.mark.parametrize("kind", ["mailbox", "domain", "tenant"])
def test_rules_what_it_answered_and_what_it_held_go_with_a_mailbox(kind, mailbox, domain, tenant, mail):
    world.rules(mailbox, blocked=["spam.test"], vacation=True, vacation_text="Away.", forward_to=["far@elsewhere.test"])
    VacationAnswer.objects.create(mailbox=mailbox, sender="bob@elsewhere.test", until=timezone.now())
    MailboxUsage.objects.create(mailbox=mailbox)
    past_grace({"mailbox": mailbox, "domain": domain, "tenant": tenant}[kind])
    removed(mail)
    for left in (MailRules, BlockEntry, VacationAnswer, MailboxUsage):
        assert not left.objects.exists()
