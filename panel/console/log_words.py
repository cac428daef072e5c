"""What is said of a search in the message log: what it asked for, and which word of it means nothing."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.rules.log_query import WORDS, Fault, LogQuery, Party, Told, Wrong
from panel.sending.log import SeenRecipient
from panel.sending.log_search import told_of
from panel.sending.models import Hold

# Look, word, drawing.
STATES: dict[Told, tuple[str, Any, str]] = {
    Told.WAITING: ("", gettext_lazy("Waiting"), "clock"),
    Told.HELD: ("", gettext_lazy("Held"), "player-pause"),
    Told.DELIVERED: ("good", gettext_lazy("Delivered"), ""),
    Told.BOUNCED: ("bad", gettext_lazy("Bounced"), ""),
    Told.GIVEN_UP: ("", gettext_lazy("Given up"), "x"),
}
HOLDS = {
    Hold.SUSPENDED: gettext_lazy("its sender is suspended"),
    Hold.UNDELIVERABLE: gettext_lazy("it can neither be delivered nor returned"),
    Hold.POISON: gettext_lazy("something is wrong with it; your provider looks at it"),
}
# Of another organisation's address here no more is told.
NEUTRAL = {
    Told.WAITING: gettext_lazy("not delivered yet"), Told.DELIVERED: gettext_lazy("delivered"),
    Told.BOUNCED: gettext_lazy("could not be delivered"), Told.GIVEN_UP: gettext_lazy("given up"),
}
EXAMPLES = (
    ("to:bob@example.com", gettext_lazy("to exactly this address")),
    ("from:@example.com after:yesterday", gettext_lazy("from any address of exactly this domain, since yesterday")),
    ("to:bob status:bounced", gettext_lazy("bounced, to addresses that begin with “bob”")),
    ("domain:example.com before:2026-03-12", gettext_lazy("from or to exactly this domain, before 12 March")),
    ("status:waiting", gettext_lazy("waiting; also: held, delivered, bounced, given-up")),
    ("ip:203.0.113.0/24 after:12h", gettext_lazy("sent from this network in the last twelve hours")),
    ('"invoice 4711"', gettext_lazy("with this in the subject of what you sent")),
)


def fault(one: Fault) -> str:
    """Which word means nothing, and what to write."""
    word, value = f"{one.word}:", one.value
    match one.wrong:
        case Wrong.UNKNOWN:
            return _("There is no “{word}”, only {words} (put it in quotes to find it in subjects).").format(
                word=word, words=" ".join(f"{each}:" for each in WORDS)
            )
        case Wrong.TWICE:
            return _("“{word}” stands twice: write it once.").format(word=word)
        case Wrong.EMPTY:
            return _("Nothing stands behind “{word}”.").format(word=word)
        case Wrong.ADDRESS:
            return _("“{value}” is no address, nor how one begins: write bob@example.com, bob or @example.com.").format(
                value=value
            )
        case Wrong.DOMAIN:
            return _("“{value}” is no domain: write its whole name, such as example.com.").format(value=value)
        case Wrong.STATUS:
            return _("There is no state “{value}”: write waiting, held, delivered, bounced or given-up.").format(
                value=value
            )
        case Wrong.TIME:
            return _(
                "“{value}” is no time: write 2026-03-12, 2026-03-12T14:00, today, yesterday, or 12h and 3d for so "
                "long ago."
            ).format(value=value)
        case Wrong.ID:
            return _("“{value}” is no queue id: it has 13 letters and digits.").format(value=value)
        case Wrong.IP:
            return _("“{value}” is no IP address or network: write 203.0.113.9 or 203.0.113.0/24.").format(value=value)
        case Wrong.ORDER:
            return _("Nothing lies between these times: after: is later than before:.")
    return _("That is too long: write fewer words.")


def asked_for(query: LogQuery) -> str:
    """The query as a sentence goes on after "messages": "from …, since …"."""
    return _(", ").join(_parts(query))


def _parts(query: LogQuery) -> Iterator[str]:
    if query.status:
        yield _("that are {state}").format(state=str(STATES[query.status][1]).lower())
    if query.to:
        yield _("to {party}").format(party=_party(query.to))
    if query.sender:
        yield _("from {party}").format(party=_party(query.sender))
    if query.domain:
        yield _("from or to the domain {domain}").format(domain=query.domain)
    if query.id:
        yield _("with the queue id {id}").format(id=query.id)
    if query.network is not None:
        network = query.network
        yield _("sent from {network}").format(network=network[0] if network.num_addresses == 1 else network)
    if query.words:
        yield _("with “{words}” in the subject").format(words=_("”, “").join(query.words))
    if query.after:
        yield _("since {time}").format(time=utc(query.after))
    if query.before:
        yield _("before {time}").format(time=utc(query.before))


def _party(party: Party) -> str:
    if party.is_null:
        return _("nobody (a report)")
    if party.begins:
        return _("addresses that begin with “{text}”").format(text=party.begins)
    return party.address or _("any address of {domain}").format(domain=party.domain)


def utc(at: datetime) -> str:
    return _("{day}, {time} UTC").format(day=date_format(at, _("j F Y")), time=f"{at:%H:%M}")


def held_because(holds: int) -> str:
    return _(", ").join(str(words) for hold, words in HOLDS.items() if holds & hold)


def remark(seen: SeenRecipient) -> tuple[str, str]:
    """What stands below the state: our words, and the other server's."""
    told = told_of(seen)
    if told is Told.HELD:
        return held_because(seen.holds), ""
    if not seen.resolved:
        return (str(NEUTRAL[told]) if told is Told.BOUNCED else ""), ""
    if told is Told.DELIVERED and seen.here:
        return _("into the mailbox"), ""
    return "", seen.reply if told is not Told.GIVEN_UP else ""
