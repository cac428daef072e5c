"""A list's search by keys that were found by an index, and never more of them than a bound."""

from collections.abc import Collection
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _

MOST_LISTED = 1000


def only(request: HttpRequest, rows: QuerySet, pks: Collection[int], more: bool) -> tuple[QuerySet, bool]:
    """Those of `rows`, as a ModelAdmin's get_search_results gives them; says so when there are `more`."""
    if more and request.resolver_match is not None and request.resolver_match.view_name.endswith("_changelist"):
        messages.info(
            request, _(
                "The first {most:,} that were found are listed. Type more of what you look for to see all of it."
            ).format(most=MOST_LISTED),
        )
    return rows.filter(pk__in=pks), False


def first(*found: QuerySet[Any] | None) -> tuple[list[int], bool]:
    """What `only` takes: the first values of queries of one column, together."""
    pks: dict[int, None] = {}
    more = False
    for rows in found:
        if rows is not None:
            values = list(rows[: MOST_LISTED + 1])
            more |= len(values) > MOST_LISTED
            pks |= dict.fromkeys(values[:MOST_LISTED])
    return list(pks), more
