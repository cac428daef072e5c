"""The message log's present search as CSV: the newest first, a page at a time, and only so many."""

import csv
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from panel.console.access import tenant_page
from panel.console.message_log import typed_in
from panel.console.places import TenantPlace
from panel.rules.cells import harmless
from panel.rules.log_query import LogQuery, parse
from panel.sending.log import SeenRecipient
from panel.sending.log_search import find, told_of

MOST_ROWS = 10_000
AT_ONCE = 250
MOST_S = 20.0  # a proxy gives up on what takes longer, and a thread of ours is busy with it
COLUMNS = ("when", "queue_id", "from", "to", "leads_to", "state", "reply", "tries", "subject", "sent_by")
MORE = "There is more: search with before: this time for the rest."


@tenant_page()
def export(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """What the list would show for `q`, all pages of it. A search that means nothing leads back to its page."""
    typed = typed_in(request)
    now = timezone.now()
    query, faults = parse(typed, now)
    if faults:
        at = reverse("console:messages", args=[place.tenant.pk])
        return HttpResponseRedirect(f"{at}?{urlencode({'q': typed})}")
    answer: Any = StreamingHttpResponse(_written(place.tenant.pk, query), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="messages-{now:%Y-%m-%d}.csv"'
    answer["X-Accel-Buffering"] = "no"
    return answer


def _written(tenant_id: int, query: LogQuery) -> Iterator[str]:
    """The lines of the file. The last says from where on something is missing, if anything is."""
    ends = time.monotonic() + MOST_S
    yield _line(COLUMNS)
    left, after, last = MOST_ROWS, "", None
    while True:
        found = find(tenant_id, query, after, min(left, AT_ONCE))
        yield "".join(_line(_cells(each)) for each in found.rows)
        left -= len(found.rows)
        after, last = found.after, found.until or _came_at(found.rows) or last
        if not after:
            return
        if left <= 0 or time.monotonic() > ends:
            yield _line([f"{last:%Y-%m-%dT%H:%M}" if last else "", *[""] * (len(COLUMNS) - 2), MORE])
            return


def _came_at(rows: list[SeenRecipient]) -> datetime | None:
    return rows[-1].accepted_at if rows else None


def _cells(seen: SeenRecipient) -> list[str]:
    at = seen.accepted_at.astimezone(UTC).isoformat(timespec="seconds") if seen.accepted_at else ""
    resolved = seen.resolved if seen.resolved != seen.original else ""
    return [
        at, seen.queue_id, seen.reverse_path, seen.original, resolved, told_of(seen).value, seen.reply, str(seen.tries),
        seen.subject, seen.credential,
    ]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    line = StringIO()
    # A line's end in a reply would be one of the file's.
    csv.writer(line, lineterminator="\r\n").writerow([harmless(" ".join(cell.split())) for cell in cells])
    return line.getvalue()
