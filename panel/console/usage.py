"""Usage and limits: what is taken of each limit, what comes of it, and what was sent in the last 30 days."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from io import StringIO

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from panel.console.access import tenant_page
from panel.console.frame import address, page
from panel.console.places import TenantPlace
from panel.operations.holdings import holdings
from panel.rules.cells import harmless
from panel.rules.forecast import Forecast
from panel.rules.limits import Kind, Window
from panel.sending.usage import MOST_COUNTED, Usage, days_of, forecasts, limited, usage_of
from panel.sending.used import Bar, window_words

MOST_SENDERS = 8
MOST_DOMAINS = 8
# The chart, in the units of its own box.
WIDTH, HEIGHT, TOP = 300, 120, 20


@dataclass(frozen=True, slots=True)
class Limit:
    """A line of the limits: the bar, what it is called, what comes."""

    bar: Bar
    title: str
    full_at: str
    comes_from: str

    @property
    def is_full(self) -> bool:
        return self.bar.allowed is not None and (self.bar.used or 0) >= self.bar.allowed


@dataclass(frozen=True, slots=True)
class Column:
    """A day of the chart, in its units."""

    x: float
    y: float
    height: float
    words: str
    look: str


@tenant_page()
def usage(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """The page."""
    now = timezone.now()
    found = usage_of(place.tenant, now, MOST_SENDERS)
    bars = limited(place.tenant, found)
    coming = forecasts(bars, now)
    held, storage = holdings(place.tenant)
    day = next((each for each in bars if each.kind is Kind.TENANT and each.window is Window.DAY), None)
    allowed = day.allowed if day else None
    fullest = _fullest(bars, coming)
    return page(
        request, place, "console/usage.html", _("Usage and limits"), limits=[_limit(each, coming) for each in bars],
        first=_first(fullest), sentence=_sentence(day, coming, fullest), usage=found, most_counted=MOST_COUNTED,
        columns=_columns(found, allowed), top=_top(found, allowed), allowed=allowed,
        half=_top(found, allowed) // 2, marks=_marks(found),
        days=list(zip(found.days, found.by_day, strict=True)),
        label=_label(found, allowed), has_reached=bool(allowed) and max(found.by_day) >= (allowed or 0),
        senders=[(each, address("mailbox", tenant=place.tenant.pk, mailbox=each.pk))
                 for each in found.mailboxes],
        domains=[(each, address("domain", tenant=place.tenant.pk, domain=each.pk))
                 for each in found.domains[:MOST_DOMAINS]],
        holdings=[*held, storage], plan=place.tenant.plan,
    )


@tenant_page()
def export(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """A line a day and sender as CSV: the tenant, its domains, its mailboxes. Days without any are left out."""
    now = timezone.now()
    written = StringIO()
    sheet = csv.writer(written)
    sheet.writerow(["day", "of", "name", "recipients"])
    for each in days_of(place.tenant, now):
        name = harmless(each.name)
        sheet.writerows((day, each.kind, name, recipients) for day, recipients in each.sent)
    answer = HttpResponse(written.getvalue(), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="usage-{now.astimezone(UTC).date()}.csv"'
    return answer


def _limit(bar: Bar, coming: dict[tuple[Kind, int], Forecast]) -> Limit:
    title = _("{name}, {window}").format(name=bar.name, window=window_words(bar.window))
    one = coming.get((bar.kind, bar.subject_id)) if bar.window is Window.DAY else None
    full_at = _clock(one.full_at_s) if one and one.full_at_s is not None and bar.allowed else ""
    comes_from = _("plan {plan}").format(plan=bar.plan) if bar.plan else _("set for it")
    return Limit(bar, title, full_at, comes_from)


def _fullest(bars: Sequence[Bar], coming: dict[tuple[Kind, int], Forecast]) -> tuple[int, Bar] | None:
    """What is full first, and when; nothing when nothing will be."""
    full = [(one.full_at_s, each) for each in bars if each.window is Window.DAY and each.allowed
            and (one := coming.get((each.kind, each.subject_id))) and one.full_at_s is not None]
    return min(full, key=lambda each: each[0], default=None)


def _first(fullest: tuple[int, Bar] | None) -> str:
    if fullest is None:
        return ""
    at_s, bar = fullest
    if bar.used is not None and bar.used >= (bar.allowed or 0):
        return _("{name} has reached its limit.").format(name=bar.name)
    return _("{name} reaches its limit about {time}, if sending goes on as in the last hour.").format(
        name=bar.name, time=_clock(at_s)
    )


def _sentence(
    day: Bar | None, coming: dict[tuple[Kind, int], Forecast], fullest: tuple[int, Bar] | None
) -> str:
    """The tenant as a whole, unless it is what is full first: that is said already."""
    if day is None or day.allowed is None:
        return _("Nothing limits {name} as a whole.").format(name=day.name) if day else ""
    one = coming.get((day.kind, day.subject_id))
    if one is None:
        return _("Nothing was sent yet: {allowed} recipients fit into 24 hours.").format(allowed=f"{day.allowed:,}")
    if one.full_at_s is not None:
        if fullest and fullest[1] is day:
            return ""
        return _("{name} as a whole is full about {time}.").format(name=day.name, time=_clock(one.full_at_s))
    return _("{name} as a whole stays below its limit: about {most} of {allowed} at most in the next 24 hours.").format(
        name=day.name, most=f"{one.most:,}", allowed=f"{day.allowed:,}"
    )


def _clock(at_s: int | None) -> str:
    at = datetime.fromtimestamp(at_s or 0, UTC)
    return _("{time} UTC").format(time=f"{at:%H:%M}")


def _top(found: Usage, allowed: int | None) -> int:
    """What the upper line of the chart stands for: the limit, or a round number above the largest day."""
    most = max(found.by_day)
    if allowed and allowed <= 4 * max(most, 1):
        return allowed
    power = 10
    while power * 10 < most:
        power *= 10
    return next(power * each for each in (1, 2, 5, 10) if power * each >= most)


def _columns(found: Usage, allowed: int | None) -> Iterator[Column]:
    top = _top(found, allowed)
    width = WIDTH / len(found.by_day)
    for number, (day, sent) in enumerate(zip(found.days, found.by_day, strict=True)):
        # Calendar days and sliding hours: a day can hold a little more than the limit.
        height = min(HEIGHT, (HEIGHT - TOP) * sent / top)
        look = "full" if allowed and sent >= allowed else "today" if day == found.days[-1] else ""
        yield Column(width * number + 1.5, HEIGHT - height, height, f"{_day(day)}: {sent:,}", look)


def _marks(found: Usage) -> list[str]:
    """What stands below the chart, every seven days."""
    return [date_format(found.days[at], _("j M")) for at in (0, 7, 14, 21)]


def _label(found: Usage, allowed: int | None) -> str:
    most = max(found.by_day)
    at = found.days[found.by_day.index(most)]
    told = _("Recipients a day, {first} to {last}: {total} in all, at most {most}, on {day}.").format(
        first=_day(found.days[0]), last=_day(found.days[-1]), total=f"{found.total:,}", most=f"{most:,}",
        day=_day(at),
    )
    return f"{told} " + _("The limit is {allowed}.").format(allowed=f"{allowed:,}") if allowed else told


def _day(day: date) -> str:
    return date_format(day, _("j F"))
