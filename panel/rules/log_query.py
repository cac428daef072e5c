"""What somebody asks of the message log, typed as words: `from:shop@acme.example after:yesterday invoice`.

Decides what the words mean, and which of them mean nothing; not what is found, nor how a fault is told.
An address is meant whole, or from its beginning on; a domain only whole: nothing is matched by a part of
its name or by its end.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

from panel.rules.searched import Network, Searched

MOST = 400  # characters of the whole text
MOST_WORDS = 8  # that are looked for in subjects
_TOKEN = re.compile(r'([A-Za-z-]{1,20}):("[^"]*"|\S*)|"([^"]*)"|(\S+)')
_AGO = re.compile(r"([0-9]{1,4})(min|m|h|d|w)")
_UNITS = {"min": timedelta(minutes=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1),
          "w": timedelta(weeks=1)}
_DAY, _MINUTE = "%Y-%m-%d", "%Y-%m-%dT%H:%M"


class Told(Enum):
    """What a tenant is told of a recipient, as `status:` names it."""

    WAITING = "waiting"
    HELD = "held"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    GIVEN_UP = "given-up"


_STATUSES = {each.value: each for each in Told} | {
    "failed": Told.BOUNCED, "discarded": Told.GIVEN_UP, "queued": Told.WAITING, "deferred": Told.WAITING,
    "sent": Told.DELIVERED,
}


class Wrong(Enum):
    """Why a word means nothing."""

    UNKNOWN = "there is no such word"
    TWICE = "it stands twice"
    EMPTY = "nothing stands behind it"
    ADDRESS = "no address begins so"
    DOMAIN = "that is no domain"
    STATUS = "there is no such state"
    TIME = "that is no time"
    ID = "that is no queue id"
    IP = "that is no IP address or network"
    ORDER = "after is not before before"
    LONG = "it is too long"


@dataclass(frozen=True, slots=True)
class Fault:
    """A word that means nothing, as it was typed."""

    wrong: Wrong
    word: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Party:
    """One side of a message: the null path, a whole address, a whole domain, or how an address begins."""

    text: str
    address: str = ""
    domain: str = ""
    begins: str = ""

    @property
    def is_null(self) -> bool:
        return not (self.address or self.domain or self.begins)


@dataclass(slots=True)
class LogQuery:
    """What is asked for: all of it together. Nothing is everything."""

    to: Party | None = None
    sender: Party | None = None
    domain: str = ""  # of either side
    status: Told | None = None
    before: datetime | None = None
    after: datetime | None = None
    id: str = ""
    network: Network | None = None
    words: list[str] = field(default_factory=list)

    @property
    def is_everything(self) -> bool:
        return self == LogQuery()


WORDS = ("to", "from", "status", "before", "after", "id", "ip", "domain")


def parse(typed: str, now: datetime) -> tuple[LogQuery, list[Fault]]:
    """What the text asks for; with faults, only what they leave of it. Times without a zone are UTC."""
    query, faults = LogQuery(), []
    if len(typed) > MOST:
        return query, [Fault(Wrong.LONG)]
    seen: set[str] = set()
    for name, value, phrase, word in _TOKEN.findall(typed.replace("\x00", " ")):
        key = name.lower()
        if not name or (key not in WORDS and not value):
            # "Re:" is a word like any other.
            query.words.append(Searched.of(phrase or word or f"{name}:").text)
            continue
        value = value.strip('"').strip()
        wrong = (
            Wrong.UNKNOWN if key not in WORDS else Wrong.TWICE if key in seen else Wrong.EMPTY if not value
            else _take(query, key, value, now)
        )
        seen.add(key)
        if wrong:
            faults.append(Fault(wrong, key, value[:80]))
    query.words = [each for each in query.words if each]
    if len(query.words) > MOST_WORDS:
        faults.append(Fault(Wrong.LONG))
    if query.before and query.after and query.after >= query.before:
        faults.append(Fault(Wrong.ORDER))
    return query, faults


def _take(query: LogQuery, key: str, value: str, now: datetime) -> Wrong | None:
    """Put the word into the query; why not, if it means nothing."""
    match key:
        case "to" | "from":
            party = _party(value)
            if party is None or (party.is_null and key == "to"):
                return Wrong.ADDRESS
            if key == "to":
                query.to = party
            else:
                query.sender = party
        case "domain":
            query.domain = Searched.of(value).domain
            return None if query.domain else Wrong.DOMAIN
        case "status":
            query.status = _STATUSES.get(value.lower())
            return None if query.status else Wrong.STATUS
        case "before" | "after":
            at = _time(value, now)
            if at is None:
                return Wrong.TIME
            if key == "before":
                query.before = at
            else:
                query.after = at
        case "id":
            query.id = value.upper()
            return None if re.fullmatch(r"[0-9A-Z]{13}", query.id) else Wrong.ID
        case _:
            query.network = Searched.of(value).network
            return None if query.network else Wrong.IP
    return None


def _party(value: str) -> Party | None:
    if value == "<>":
        return Party(value)
    searched = Searched.of(value)
    if searched.address:
        return Party(value, address=searched.address)
    if value.startswith("@"):
        return Party(value, domain=searched.domain) if searched.domain else None
    if not searched.begins:
        return None
    # A whole name with a dot in it and no @ is far more often a domain than how an address begins.
    if searched.domain and "." in value and searched.local_part is None:
        return Party(value, domain=searched.domain)
    return Party(value, begins=searched.begins)


def _time(value: str, now: datetime) -> datetime | None:
    low = value.lower()
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if low in ("today", "yesterday"):
        return midnight if low == "today" else midnight - timedelta(days=1)
    if ago := _AGO.fullmatch(low):
        return now - int(ago[1]) * _UNITS[ago[2]]
    for form in (_DAY, _MINUTE):
        try:
            return datetime.strptime(value.upper().removesuffix("Z"), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
