"""The provider's staff in a tenant's console: who looks into which one, why, and until when.

A visit is of one account into one tenant, in the session that began it; it only looks (panel/console/access).
It ends by Leave, by signing out, by another visit or after an hour. The tenant reads of its begin and its end in
the audit log, and sees a notice on its home.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.tenants import audit
from panel.tenants.changes import ServiceError, alone, one_line
from panel.tenants.models import Tenant, User, Visit

if TYPE_CHECKING:  # the mailserver, which ends what is overdue, needs none of it
    from django.http import HttpRequest

LASTS = timedelta(hours=1)
SHOWN_FOR = timedelta(days=7)  # to the tenant, on its home
MOST_ENDED = 200  # in one step
VISIT = "visit"  # in the session: its id
# Why it ended, as the audit log has it.
LEFT, SIGNED_OUT, ANOTHER, OVER = "left", "signed out", "looked into another tenant", "its hour was over"


@transaction.atomic
def begin(tenant: Tenant, *, reason: str, actor: User, ip: str | None = None) -> Visit:
    """Let the account look into the tenant; its visit elsewhere ends. Raises ServiceError."""
    reason = one_line(reason, "reason", most=audit.MOST_REASON, required=True)
    if not actor.has_provider_role:
        raise ServiceError(_("Only the provider's accounts look into a tenant's console."))
    alone(f"visits of account {actor.pk}")  # two at once would both find no other one
    for other in Visit.objects.filter(account=actor, ended_at=None).select_related("tenant", "account"):
        _end(other, timezone.now(), ANOTHER, ip)
    now = timezone.now()
    visit = Visit.objects.create(tenant=tenant, account=actor, reason=reason, began_at=now, ends_at=now + LASTS)
    after = {"until at most": visit.ends_at}
    audit.record(actor, "tenant.view_began", tenant, tenant=tenant, after=after, reason=reason, ip=ip)
    return visit


def enter(request: "HttpRequest", visit: Visit) -> None:
    """This session is the one that looks."""
    request.session[VISIT] = visit.pk


def of(request: "HttpRequest", account: User) -> Visit | None:
    """The visit that goes on in this session: one query, none for whoever isn't of the provider's staff."""
    number = request.session.get(VISIT)
    if number is None or not account.has_provider_role:
        return None
    return Visit.objects.filter(pk=number, account=account, ended_at=None, ends_at__gt=timezone.now()).first()


@transaction.atomic
def leave(request: "HttpRequest", because: str = LEFT, *, ip: str | None = None) -> None:
    """End the visit of this session, if there is one."""
    number = request.session.pop(VISIT, None)
    visit = Visit.objects.filter(pk=number, ended_at=None).select_related("tenant", "account").first()
    if visit is not None:
        _end(visit, timezone.now(), because, ip)


@transaction.atomic
def end_overdue(now: datetime) -> int:
    """End those whose hour is over, at most MOST_ENDED; how many. Several may do it at once."""
    overdue = Visit.objects.filter(ended_at=None, ends_at__lte=now).select_related("tenant", "account")
    return sum(_end(visit, visit.ends_at, OVER, None) for visit in overdue.order_by("pk")[:MOST_ENDED])


def lately(tenant: Tenant) -> Visit | None:
    """The last one into this tenant, while its home tells of it: one query."""
    return Visit.objects.filter(tenant=tenant, began_at__gt=timezone.now() - SHOWN_FOR).order_by("-pk").first()


def _end(visit: Visit, at: datetime, because: str, ip: str | None) -> bool:
    """Whether it ended now; its tenant reads so once."""
    if not Visit.objects.filter(pk=visit.pk, ended_at=None).update(ended_at=at):
        return False
    audit.record(
        visit.account, "tenant.view_ended", visit.tenant, tenant=visit.tenant, after={"because": because},
        reason=visit.reason, ip=ip, by="a deleted account",
    )
    return True
