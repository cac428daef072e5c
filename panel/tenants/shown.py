"""How times and sizes are written for people, and read again."""

import re
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

_UNITS = ("bytes", "KB", "MB", "GB", "TB")  # each 1,024 of the one before, as mail clients count
# Seconds of one, below how many they are told by it, and how it is said: to come, gone by.
_SPANS: tuple[tuple[int, int, Any, Any], ...] = (
    (1, 60, gettext_lazy("in {n} s"), gettext_lazy("{n} s ago")),
    (60, 3600, gettext_lazy("in {n} min"), gettext_lazy("{n} min ago")),
    (3600, 48 * 3600, gettext_lazy("in {n} h"), gettext_lazy("{n} h ago")),
    (86400, 31 * 86400, gettext_lazy("in {n} days"), gettext_lazy("{n} days ago")),
)
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,3})?) ?([KMGT]?)(?:I?B)?", re.IGNORECASE)


def moment(at: datetime, now: datetime | None = None, *, plain: bool = False) -> str:
    """The time as people say it ("4 min ago"), the exact UTC time on hover; `plain` without markup."""
    words = _apart(at - (now or timezone.now()), at)
    if plain:
        return words
    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return format_html('<time class="ph-num" datetime="{}" title="{}">{}</time>', at.isoformat(), exact, words)


def _apart(ahead: timedelta, at: datetime) -> str:
    seconds = int(abs(ahead.total_seconds()))
    if seconds < 5:
        return _("just now")
    for span, below, to_come, gone in _SPANS:
        if seconds < below:
            return str(to_come if ahead > timedelta(0) else gone).format(n=seconds // span)
    return f"{at:%Y-%m-%d}"


def size(number: int | None) -> str:
    """Bytes as "5 GB"; exact, so that it reads back as the same number. Nothing for None."""
    if number is None:
        return ""
    for power in range(len(_UNITS) - 1, 0, -1):
        if number and number % 1024**power == 0:
            return f"{number // 1024**power:,} {_UNITS[power]}"
    return f"{number:,} bytes"


def about(number: int) -> str:
    """Bytes to one digit: "7.1 MB"."""
    power = 0
    while number >= 1000 * 1024**power and power < len(_UNITS) - 1:
        power += 1
    return f"{number / 1024**power:,.1f} {_UNITS[power]}" if power else _("{n} bytes").format(n=f"{number:,}")


def read_size(text: str) -> int | None:
    """The bytes of "5 GB", "500M" or "1048576"; None for nothing. Raises ValueError."""
    text = text.strip().replace(",", "")
    text = text.removesuffix("bytes").strip()
    if not text:
        return None
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError("write a size such as 5 GB or 500 MB")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")) if "." in found[1] else (
        int(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")
    )
