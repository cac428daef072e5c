"""The end of a grace period: what was closed is removed for good, a bounded step at a time.

First what it has in the queue is made due: the mailserver's queue sees that its sender's grace
period is over and bounces it. Only when none of that waits any more go the mail, then the rows:
a step that was cut short is simply made again. Deciding and changing stay apart from whoever
calls: the mailserver does, every minute.

What is below a tenant is closed with it, but not removed with it: the tenant itself stays
until its children are moved or gone.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from django.db import DataError, IntegrityError, models, transaction
from django.db.models import Q
from django.utils.translation import gettext as _

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import Address, Alias, Credential, Mailbox
from panel.rules.limits import Kind
from panel.rules.status import Status
from panel.sending.models import Counter, Recipient
from panel.tenants import audit
from panel.tenants.changes import Gone, ServiceError, changed, delete, lock
from panel.tenants.models import Membership, Tenant

MOST_SUBJECTS = 50  # of each kind, looked at in one step
MOST_MAILBOXES = 20  # removed in one step
MOST_FILES = 20_000  # unlinked in one step
MOST_RECIPIENTS = 500  # of one subject, made due in one step
# Restoring is decided by the panel's clock: no removal begins in the very moment it is still possible.
MARGIN = timedelta(minutes=1)
BY = "end of the grace period"
OURS = ("local", "lmtp")  # next hops of mail that is received here


@dataclass
class Step:
    """What one step did. `failed`: a subject and why, to be tried again at the next one."""

    removed: list[str] = field(default_factory=list)
    due: int = 0  # recipients that are to bounce
    failed: list[tuple[str, str]] = field(default_factory=list)
    mailboxes_left: int = MOST_MAILBOXES
    files_left: int = MOST_FILES


def end_grace(now: datetime, mail: Path) -> Step:
    """One step for all whose grace period has ended; `mail` is the folder that holds the mailboxes' mail.

    Several nodes may do it at once. A subject that fails is told of and left for the next
    step. Raises Django's database errors when the database is gone.
    """
    step = Step()
    before = now - MARGIN
    for mailbox in _over(Mailbox.objects.select_related("address__domain", "address__tenant", "person"), before):
        _try(step, mailbox, partial(_end_mailbox, mailbox, step, now, mail))
    for domain in _over(Domain.objects.select_related("tenant"), before):
        _try(step, domain, partial(_end_domain, domain, step, now, mail))
    for tenant in _over(Tenant.objects.all(), before):
        _try(step, tenant, partial(_end_tenant, tenant, step, now, mail))
    return step


def _over(rows: models.QuerySet, before: datetime) -> list:
    return list(rows.filter(status=Status.CLOSED, grace_ends_at__lte=before).order_by("grace_ends_at")[:MOST_SUBJECTS])


def _try(step: Step, subject: models.Model, work: Callable[[], bool]) -> None:
    name = f"the {subject._meta.verbose_name} {subject}"
    try:
        if work():
            step.removed.append(name)
    except Gone:
        pass  # another node was faster
    except (ServiceError, OSError, IntegrityError, DataError) as error:
        step.failed.append((name, str(error).strip()))


# Each kind


def _end_mailbox(mailbox: Mailbox, step: Step, now: datetime, mail: Path) -> bool:
    """Whether it is gone now; so do the next two."""
    return _bounced(_of_mailbox(mailbox), step, now) and _remove_mailbox(mailbox, step, mail)


def _end_domain(domain: Domain, step: Step, now: datetime, mail: Path) -> bool:
    if not _bounced(_of_domain(domain), step, now):
        return False
    if not _remove_addresses(Address.objects.filter(domain=domain), step, mail):
        return False
    return _remove_domain(domain)


def _end_tenant(tenant: Tenant, step: Step, now: datetime, mail: Path) -> bool:
    if not _bounced(Q(tenant=tenant), step, now):
        return False
    if not _remove_addresses(Address.objects.filter(tenant=tenant), step, mail):
        return False
    for domain in Domain.objects.filter(tenant=tenant)[:MOST_SUBJECTS]:
        _remove_domain(domain)
    return _remove_tenant(tenant)


# Its queue


def _of_mailbox(mailbox: Mailbox) -> Q:
    """The mail that a mailbox caused, as Recipients."""
    own = Q(message__credential__in=Credential.objects.filter(mailbox=mailbox).values("pk"))
    as_itself = Q(message__direction="submission", message__reverse_path__iexact=str(mailbox.address))
    return Q(tenant=mailbox.address.tenant) & (own | as_itself)


def _of_domain(domain: Domain) -> Q:
    inside = Credential.objects.filter(mailbox__address__domain=domain).values("pk")
    as_it = Q(message__direction="submission", message__reverse_path__iendswith=f"@{domain.name}")
    caused = Q(message__credential__in=inside) | as_it
    return caused & Q(tenant=domain.tenant) if domain.tenant_id else caused


def _bounced(caused: Q, step: Step, now: datetime) -> bool:
    """Whether nothing of it waits any more; what does is made due, so that the queue bounces it.

    What came in for a mailbox here is none of that: it fails by itself when the mailbox is gone.
    """
    passed_on = Q(message__direction__in=["inbound", "answer"]) & ~Q(next_hop__in=OURS)
    sent = Q(message__direction="submission") | passed_on
    waiting = Recipient.objects.filter(caused, sent, state=Recipient.State.WAITING)
    held = list(waiting.filter(holds__gt=0).order_by("pk").values_list("pk", flat=True)[:MOST_RECIPIENTS])
    if held:
        with transaction.atomic():
            rows = Recipient.objects.filter(pk__in=held, state=Recipient.State.WAITING)
            for _row in rows.order_by("pk").select_for_update().values_list("pk"):
                pass  # locked in the order of their ids, as the mailserver does it
            step.due += rows.update(holds=0, due_at=now)
        return False
    later = list(waiting.filter(due_at__gt=now, lease_until=None).values_list("pk", flat=True)[:MOST_RECIPIENTS])
    if later:
        with transaction.atomic():
            step.due += Recipient.objects.filter(pk__in=later, state="waiting", lease_until=None).update(due_at=now)
        return False
    return not waiting.exists()


# Its mail and its rows


def _remove_addresses(addresses: models.QuerySet[Address], step: Step, mail: Path) -> bool:
    """Remove the mailboxes and aliases of these addresses; whether none is left."""
    boxes = Mailbox.objects.filter(address__in=addresses).select_related("address__domain", "address__tenant", "person")
    for mailbox in boxes.order_by("pk")[: max(0, step.mailboxes_left)]:
        if not _remove_mailbox(mailbox, step, mail):
            return False
    if boxes.exists():
        return False
    for alias in Alias.objects.filter(address__in=addresses).select_related("address__domain", "address__tenant")[:500]:
        _remove_alias(alias)
    return not addresses.exists()


def _remove_mailbox(mailbox: Mailbox, step: Step, mail: Path) -> bool:
    """Remove its mail, then its rows; False when this step has done enough."""
    if step.mailboxes_left <= 0 or not _remove_mail(mailbox.opaque_id, step, mail):
        return False
    step.mailboxes_left -= 1
    _remove_rows(mailbox)
    return True


@transaction.atomic
def _remove_rows(mailbox: Mailbox) -> None:
    lock(mailbox, to_delete=True)
    address, person = mailbox.address, mailbox.person
    before = {"address": address, "name": mailbox.name, "quota_bytes": mailbox.quota_bytes}
    audit.record(None, "mailbox.removed", mailbox, tenant=address.tenant, before=before, by=BY)
    credentials = list(mailbox.credentials.values_list("pk", flat=True))
    number = mailbox.pk
    delete(mailbox, _("{name} is still in use.").format(name=mailbox))
    delete(address, _("{name} is still in use.").format(name=address))
    delete(person, _("The person of {address} is still in use.").format(address=address))
    Counter.objects.filter(
        Q(kind=Kind.MAILBOX, subject=number) | Q(kind=Kind.CREDENTIAL, subject__in=credentials)
    ).delete()
    changed(address.domain.name)


@transaction.atomic
def _remove_alias(alias: Alias) -> None:
    lock(alias, to_delete=True)
    address, targets = alias.address, list(alias.targets.values_list("target", flat=True))
    before = {"address": address, "targets": targets}
    audit.record(None, "alias.removed", alias, tenant=address.tenant, before=before, by=BY)
    delete(alias, _("{name} is still in use.").format(name=alias))
    delete(address, _("{name} is still in use.").format(name=address))
    # Who may send as the alias changes in its targets' domains.
    here = Domain.objects.filter(name__in={target.rpartition("@")[2] for target in targets})
    changed(address.domain.name, *here.values_list("name", flat=True))


@transaction.atomic
def _remove_domain(domain: Domain) -> bool:
    stored = lock(domain, to_delete=True)
    if stored.addresses.exists():
        return False  # made meanwhile
    names = list(stored.aliases.values_list("name", flat=True))
    before = {"kind": stored.kind, "aliases": names}
    audit.record(None, "domain.removed", stored, tenant=stored.tenant, before=before, by=BY)
    DomainAlias.objects.filter(domain=stored).delete()
    delete(stored, _("{name} is still in use.").format(name=stored))
    Counter.objects.filter(kind=Kind.DOMAIN, subject=domain.pk).delete()
    changed(domain.name, *names)
    return True


@transaction.atomic
def _remove_tenant(tenant: Tenant) -> bool:
    stored = lock(tenant, to_delete=True)
    if stored.domains.exists() or stored.addresses.exists() or stored.children.exists():
        return False
    audit.record(None, "tenant.removed", stored, tenant=None, before={"plan": stored.plan}, by=BY)
    Membership.objects.filter(tenant=stored).delete()
    delete(stored, _("{name} is still in use.").format(name=stored))
    Counter.objects.filter(kind=Kind.TENANT, subject=tenant.pk).delete()
    return True


def _remove_mail(opaque_id: str, step: Step, mail: Path) -> bool:
    """Unlink the mailbox's folder, as much as this step may; whether it is gone. Raises OSError."""
    folder = mail / opaque_id[:2] / opaque_id
    for path, _folders, names in os.walk(folder, onerror=_raise_unless_gone):
        for name in names:
            if step.files_left <= 0:
                return False
            step.files_left -= 1
            (Path(path) / name).unlink(missing_ok=True)
    for each in (folder, *(mail / "migration").glob(f"{opaque_id}-*")):
        if each.exists():
            shutil.rmtree(each)
    return True


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
