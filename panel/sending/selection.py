"""Which recipients somebody means: a filter that reads as a sentence, by every door the same.

The admin's list, its acts in bulk and the command line all build one. "Older than" goes by
the recipient's id, which holds the time when the message was accepted (database/ids).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.translation import get_language, gettext_lazy, ngettext_lazy, pgettext
from django.utils.translation import gettext as _

from panel.database import ids
from panel.database.indexed import is_folded
from panel.sending.models import BulkAct, Hold, Recipient
from panel.tenants.changes import ServiceError, one_line
from panel.tenants.models import Tenant, User

# What a next hop that is no host's name is called.
HERE: dict[str, Any] = {
    "local": gettext_lazy("mailboxes here"), "lmtp": gettext_lazy("mailboxes here by LMTP"),
}
NOT_HELD, HELD = "none", "any"
HOLDS = {hold.name.lower(): hold for hold in Hold}
MOST_TEXT = 320
# What `Selection.read` reads, and `params` gives.
PARAMETERS = (
    "state__exact", "holds", "hop", "domain", "tenant__id__exact", "recipient", "sender", "older", "message",
)
_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
_SPANS: dict[str, Any] = {"min": gettext_lazy("{n} min"), "h": gettext_lazy("{n} h"), "d": gettext_lazy("{n} d")}
_SPAN = re.compile(r"([0-9]{1,6}) ?(s|min|m|h|d)", re.ASCII)

# Recipients of each state, without a number and with one.
HELD_STATE = "held"
_SEVERAL: dict[str, Any] = {
    "": gettext_lazy("recipients"), "waiting": gettext_lazy("waiting recipients"),
    "delivered": gettext_lazy("delivered recipients"), "failed": gettext_lazy("failed recipients"),
    "discarded": gettext_lazy("discarded recipients"), HELD_STATE: gettext_lazy("held recipients"),
}
_COUNTED: dict[str, Any] = {
    "": ngettext_lazy("{n:,} recipient", "{n:,} recipients", "n"),
    "waiting": ngettext_lazy("{n:,} waiting recipient", "{n:,} waiting recipients", "n"),
    "delivered": ngettext_lazy("{n:,} delivered recipient", "{n:,} delivered recipients", "n"),
    "failed": ngettext_lazy("{n:,} failed recipient", "{n:,} failed recipients", "n"),
    "discarded": ngettext_lazy("{n:,} discarded recipient", "{n:,} discarded recipients", "n"),
    HELD_STATE: ngettext_lazy("{n:,} held recipient", "{n:,} held recipients", "n"),
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What is left empty doesn't narrow.

    `recipient` and `sender` are an address, or a domain for all of its addresses; the sender "<>"
    is the null path. `domain` is a next hop or the recipients' domain.
    """

    state: str = ""
    hold: str = ""  # of HOLDS, or HELD, NOT_HELD
    hop: str = ""
    domain: str = ""
    tenant: int | None = None
    recipient: str = ""
    sender: str = ""
    older_s: int | None = None
    message: int | None = None

    @classmethod
    def read(cls, params: Mapping[str, Any]) -> "Selection":
        """The one that the parameters of the admin's list name. Raises ServiceError."""
        state, hold = str(params.get("state__exact", "")), str(params.get("holds", ""))
        if state not in ("", *Recipient.State.values):
            raise ServiceError(_("No recipient is {state!r}.").format(state=state[:40]), "state")
        if hold not in ("", HELD, NOT_HELD, *HOLDS):
            raise ServiceError(_("Nothing is held because of {hold!r}.").format(hold=hold[:40]), "holds")
        tenant = str(params.get("tenant__id__exact", ""))
        if tenant and not (tenant.isascii() and tenant.isdigit() and len(tenant) < 19):
            raise ServiceError(_("This is no tenant's number."), "tenant")
        older, message = str(params.get("older", "")), str(params.get("message", ""))
        return cls(
            # What is held waits.
            state=state or (Recipient.State.WAITING.value if hold else ""), hold=hold,
            hop=as_kept(_text(params, "hop")), domain=as_kept(_text(params, "domain")),
            tenant=int(tenant) if tenant else None, recipient=_text(params, "recipient"),
            sender=_text(params, "sender"), older_s=read_span(older) if older else None,
            message=_number(message) if message else None,
        )

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> "Selection":
        """The one that `as_json` gave."""
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in ("", None)}

    def params(self) -> dict[str, str]:
        """The parameters that `read` reads."""
        named = {
            "state__exact": self.state, "holds": self.hold, "hop": self.hop, "domain": self.domain,
            "tenant__id__exact": self.tenant, "recipient": self.recipient, "sender": self.sender,
            "older": span(self.older_s).replace(" ", "") if self.older_s is not None else "",
            "message": ids.to_text(self.message) if self.message is not None else "",
        }
        return {name: str(value) for name, value in named.items() if value not in ("", None)}

    @property
    def narrows(self) -> bool:
        return bool(self.as_json())

    @property
    def waits(self) -> bool:
        """Whether all that it holds is in the queue."""
        return self.state == Recipient.State.WAITING

    def rows(self, now: datetime) -> QuerySet[Recipient]:
        """These recipients, as they are at this moment; `now` is from when "older than" counts."""
        return self.narrow(Recipient.objects.all(), now)

    def narrow(self, rows: QuerySet[Recipient], now: datetime) -> QuerySet[Recipient]:
        """Those of the rows that it names."""
        if self.state:
            rows = rows.filter(state=self.state)
        if self.hold:
            rows = rows.filter(held(self.hold))
        if self.hop:
            rows = rows.filter(next_hop=self.hop)
        if self.domain:
            rows = rows.filter(Q(next_hop=self.domain) | Q(resolved__endswith=f"@{self.domain}"))
        if self.tenant is not None:
            rows = rows.filter(tenant=self.tenant)
        if self.message is not None:
            rows = rows.filter(message=self.message)
        if self.recipient:
            # What it resolves to is canonical, and asked for as it is.
            local = self.recipient.rpartition("@")[0]
            resolved = Q(resolved=self.recipient.lower()) if local else _address("resolved", self.recipient)
            rows = rows.filter(_address("original", self.recipient) | resolved)
        if self.sender:
            null = self.sender == "<>"
            rows = rows.filter(Q(message__reverse_path="") if null else _address("message__reverse_path", self.sender))
        if self.older_s is not None:
            rows = rows.filter(pk__lt=first_younger(now, self.older_s))
        return rows

    def sentence(self, count: int | None = None, *, seen_by: User | None = None) -> str:
        """"1,204 waiting recipients to gmail.com older than 10 min"; without a count "waiting recipients to …".

        A tenant that `seen_by` may not see has no name in it; without one every tenant has.
        """
        which = " ".join(self._narrowed(seen_by))
        recipients = self._recipients(count)
        if not which:
            return recipients
        return pgettext("recipients that are", "{recipients} {which}").format(recipients=recipients, which=which)

    def _recipients(self, count: int | None) -> str:
        state = HELD_STATE if self.hold and self.hold != NOT_HELD else self.state
        if count is None:
            return str(_SEVERAL[state])
        return str(_COUNTED[state].format(n=count))

    def _narrowed(self, seen_by: User | None) -> Iterator[str]:
        """What each filter says."""
        if self.hold in HOLDS:
            yield pgettext("recipients that are", "(because {})").format(HOLDS[self.hold].label)
        if self.hold == NOT_HELD:
            yield pgettext("recipients that are", "that nothing holds")
        if self.hop:
            yield pgettext("recipients that are", "to {}").format(HERE.get(self.hop, self.hop))
        if self.domain:
            yield pgettext("recipients that are", "towards {}").format(self.domain)
        if self.recipient:
            yield pgettext("recipients that are", "addressed to {}").format(_named(self.recipient))
        if self.sender:
            yield pgettext("recipients that are", "from {}").format(_named(self.sender))
        if self.tenant is not None:
            yield pgettext("recipients that are", "of the tenant {}").format(self._tenant_name(seen_by))
        if self.message is not None:
            yield pgettext("recipients that are", "of the message {}").format(ids.to_text(self.message))
        if self.older_s is not None:
            yield pgettext("recipients that are", "older than {}").format(span_words(self.older_s))

    def told_to_tenants(self) -> "Selection":
        """Without what tells where an address of another tenant's leads: next hops, and what it resolves to."""
        return replace(self, hop="", domain="", recipient="")

    def _tenant_name(self, seen_by: User | None) -> str:
        tenants = Tenant.objects.all() if seen_by is None else Tenant.objects.for_user(seen_by)
        name = tenants.filter(pk=self.tenant or 0).values_list("name", flat=True).first()
        return name or _("with the number {number}, which is not here").format(number=self.tenant)


def which_of(act: BulkAct) -> str:
    """What an act is about, in the reader's language.

    Of a tenant's recipients as it was told and kept, in English: its name isn't asked for each row of a list.
    """
    chosen = Selection.stored(act.selection)
    return act.which if chosen.tenant is not None or get_language() == "en" else chosen.sentence()


def held(hold: str) -> Q:
    """The condition on `holds` for one of HOLDS, HELD or NOT_HELD."""
    if hold == NOT_HELD:
        return Q(holds=0)
    if hold == HELD:
        return Q(holds__gt=0)
    # The first is the condition of the index on what is held.
    return Q(holds__gt=0, holds__in=[bits for bits in range(1, 1 << len(Hold)) if bits & HOLDS[hold]])


def first_younger(now: datetime, older_s: int) -> int:
    """The smallest id of what is not older than this at that moment."""
    try:
        since = now - timedelta(seconds=older_s)
    except OverflowError:  # before the calendar begins: nothing is older
        return ids.first_of_ms(0)
    return ids.first_of_ms(int(since.timestamp() * 1000))


def read_span(text: str) -> int:
    """The seconds of "10min", "6 h" or "2d". Raises ServiceError."""
    found = _SPAN.fullmatch(text.strip().lower())
    if not found:
        raise ServiceError(
            _("{text!r} is no length of time: write 10min, 6h or 2d.").format(text=text[:40]), "older"
        )
    return int(found[1]) * _UNITS[found[2]]


def span(seconds: int) -> str:
    """As `read_span` reads it: "10 min"."""
    for unit in ("d", "h", "min"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]} {unit}"
    return f"{seconds} s"


def span_words(seconds: int) -> str:
    """The same in the reader's language."""
    for unit in ("d", "h", "min"):
        if seconds and seconds % _UNITS[unit] == 0:
            return str(_SPANS[unit]).format(n=seconds // _UNITS[unit])
    return _("{n} s").format(n=seconds)


def _text(params: Mapping[str, Any], name: str) -> str:
    return one_line(str(params.get(name, "")), name, most=MOST_TEXT)


def as_kept(hop: str) -> str:
    """A next hop, or a domain, in the spelling that is stored: lower case but for the tag of RFC 5321 §4.1.3."""
    return hop.lower().replace("[ipv6:", "[IPv6:")


def _number(queue_id: str) -> int:
    try:
        return ids.from_text(queue_id.strip())
    except ValueError as error:
        raise ServiceError(f"{str(error)[:80].capitalize()}.", "message") from None


def _address(column: str, text: str) -> Q:
    """An address as a whole, by an index; or every address of a domain, by none."""
    local, at, _domain = text.rpartition("@")
    if local:
        return is_folded(column, text)
    return Q(**{f"{column}__iendswith": text if at else f"@{text}"})


def _named(text: str) -> str:
    """As `_address` takes it: a domain is told from an address by its "@"."""
    return text if "@" in text or text == "<>" else f"@{text}"
