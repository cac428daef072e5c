"""A tenant's domains in the order in which they need somebody.

By what is stored: nobody asks the DNS for a list.
"""

from enum import IntEnum
from typing import Any

from django.conf import settings
from django.db.models import Case, IntegerField, Q, QuerySet, Value, When

from panel.domains.checks import installation
from panel.domains.models import Domain, Proof
from panel.rules import records
from panel.rules.status import Status
from panel.rules.verdicts import Verdict


class Rank(IntEnum):
    """The smaller, the sooner somebody should look."""

    LAPSED = 0  # doesn't send any more
    ENDING = 1  # will not, in days
    STOPPED = 2  # not allowed to send, or suspended
    WRONG = 3  # a required record isn't right
    PENDING = 4
    FINE = 5  # and what nobody looked up yet
    CLOSED = 6


def by_rank(domains: "QuerySet[Domain]") -> "QuerySet[Any]":
    """The domains with `rank`, ordered by it and by name."""
    right = Q(**{f"latest_check__verdicts__{key}": Verdict.SAME.value for key in _required()})
    return domains.annotate(
        rank=Case(
            When(status=Status.CLOSED, then=Value(Rank.CLOSED)),
            When(status__gt=Status.ACTIVE, then=Value(Rank.STOPPED)),
            When(proof=Proof.LAPSED, then=Value(Rank.LAPSED)),
            When(proof=Proof.PENDING, then=Value(Rank.PENDING)),
            When(latest_check__missing_since__isnull=False, then=Value(Rank.ENDING)),
            When(Q(latest_check__checked_at=None) | right, then=Value(Rank.FINE)),
            default=Value(Rank.WRONG),
            output_field=IntegerField(),
        )
    ).order_by("rank", "name")


def after(domains: "QuerySet[Any]", rank: int, name: str) -> "QuerySet[Any]":
    """What follows this place in a list by rank."""
    return domains.filter(Q(rank__gt=rank) | Q(rank=rank, name__gt=name))


def _required() -> list[str]:
    """The keys of the records that every domain needs here."""
    wanted = records.expected("example.com", installation(settings.ENVIRONMENT))
    return [record.key for record in wanted if record.is_required]
