"""Acts on many waiting recipients at once: asked for with their count, done in bounded steps, reported.

Whoever asked carries the act on, step by step: a page's requests or the command line. A step
is one transaction that moves the act's own mark with what it did, so that one that is
interrupted leaves nothing half done, and whoever goes on, does nothing twice. Two who carry
the same act on wait for each other; of two acts on the same recipients the second finds them
settled. The audit log is written with the question: an entry for each tenant concerned.
"""

from dataclasses import replace
from datetime import datetime

from django.db import transaction
from django.db.models import Count, Max, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import override

from panel.sending import services
from panel.sending.models import BulkAct, BulkKind, Recipient
from panel.sending.selection import Selection
from panel.tenants import audit
from panel.tenants.changes import ServiceError, lock, one_line
from panel.tenants.models import AuditEntry, Tenant, User

STEP = 500  # recipients in one transaction: what intake waits for on SQLite, at most
_KEPT = {BulkKind.RETRY: "try now", BulkKind.DISCARD: "give up"}  # in the audit log
ACTIONS = {BulkKind.RETRY: "queue.retry_asked", BulkKind.DISCARD: "queue.discard_asked"}


def waiting(selection: Selection) -> Selection:
    """What of the selection waits. Raises ServiceError when it is of others only."""
    if selection.state not in ("", Recipient.State.WAITING):
        raise ServiceError(_("Only what waits can be tried or given up, not what was {state}.").format(
            state=Recipient.State(selection.state).label
        ))
    return replace(selection, state=Recipient.State.WAITING.value)


def count(selection: Selection, now: datetime) -> tuple[int, int]:
    """How many an act would be about, and the largest of their ids (0: none)."""
    found = waiting(selection).rows(now).aggregate(Count("pk"), Max("pk"))
    return found["pk__count"], found["pk__max"] or 0


@transaction.atomic
def ask(
    kind: str,
    selection: Selection,
    *,
    release: bool = False,
    reason: str = "",
    upto: int | None = None,
    now: datetime | None = None,
    actor: User | None,
    ip: str | None = None,
) -> BulkAct:
    """An act to be carried on by `step`; nothing is tried or given up yet.

    `upto` is the largest id of those whose count was confirmed: what came later is left alone, as
    is what `now`, the moment of that question, makes too young. `release` goes with trying: see
    services.retry. Raises ServiceError when nothing waits, or without a reason to give up.
    """
    act = BulkKind(kind)
    reason = one_line(reason, "reason", most=audit.MOST_REASON, required=act is BulkKind.DISCARD)
    now = now or timezone.now()
    selection = waiting(selection)
    rows = selection.rows(now)
    if upto is not None:
        rows = rows.filter(pk__lte=upto)
    tenants = list(rows.order_by().values_list("tenant").annotate(Count("pk"), Max("pk")))
    if not tenants:
        raise ServiceError(_("Nothing of it waits any more."))
    with override("en"):  # what is kept of it
        which, told = selection.sentence(), selection.told_to_tenants().sentence()
    made = BulkAct.objects.create(
        kind=act, selection=selection.as_json(), which=which[:1000], release=release, reason=reason, actor=actor,
        actor_name=str(actor) if actor else audit.COMMAND_LINE, asked_at=now,
        asked=sum(number for _pk, number, _largest in tenants), upto=max(largest for *_rest, largest in tenants),
    )
    entries: list[AuditEntry] = []
    known = Tenant.objects.in_bulk([pk for pk, *_rest in tenants if pk is not None])
    for pk, number, _largest in sorted(tenants, key=lambda each: (each[0] is None, each[0])):
        words = which if pk is None else told
        entry = audit.entry(
            actor, ACTIONS[act], made, tenant=known.get(pk) if pk is not None else None,
            after={"recipients": number, "which": words, **({"released": True} if release else {})},
            reason=reason, ip=ip,
        )
        entry.subject_name = f"{_KEPT[act]}: {words}"[:400]
        entries.append(entry)
    AuditEntry.objects.bulk_create(entries)
    return made


@transaction.atomic
def step(act: BulkAct) -> BulkAct:
    """Do the next STEP recipients of the act, or find that it is at its end; gives it as it is then."""
    act = lock(act)
    if act.finished_at is not None:
        return act
    now = timezone.now()
    rows = Selection.stored(act.selection).rows(act.asked_at).filter(pk__gt=act.after, pk__lte=act.upto)
    chosen = list(rows.order_by("pk").values_list("pk", flat=True)[:STEP])
    if chosen:
        if act.kind == BulkKind.RETRY:
            done = services.make_due(chosen, now, release=act.release)
        else:
            done = services.give_up(chosen, now)
        act.done += len(done.done)
        act.held += len(done.held)
        act.on_the_way += len(done.on_the_way)
        act.after = chosen[-1]
    if len(chosen) < STEP:
        act.finished_at = now
    act.save(update_fields=["done", "held", "on_the_way", "after", "finished_at"])
    return act


@transaction.atomic
def stop(act: BulkAct, *, actor: User | None, ip: str | None = None) -> BulkAct:
    """End the act where it is. Raises ServiceError when it ended by itself."""
    act = lock(act)
    if act.finished_at is not None:
        raise ServiceError(_("It is at its end already."))
    act.finished_at, act.stopped = timezone.now(), True
    act.save(update_fields=["finished_at", "stopped"])
    audit.record(
        actor, "queue.act_stopped", act, tenant=None, after={"done": act.done, "of": act.asked}, ip=ip
    )
    return act


def unfinished() -> QuerySet[BulkAct]:
    return BulkAct.objects.filter(finished_at=None)
