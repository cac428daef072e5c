"""What was found in the DNS of a domain, against what should be there: a verdict a record, and one in all.

Decides on answers that were fetched; which questions those are is decided here too (`questions`).
Each verdict has a sentence that says what to do. Sentences are kept apart from their facts, so that
they can be said in another language.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from panel.rules import spf
from panel.rules.records import NOT_OFFERED, PROOF_BEGIN, Installation, Record, with_values

MOST_VALUES = 10  # of one answer, kept
MOST_VALUE = 2000  # characters of a value, kept; a longer one ends in "…"
CUT = "…"

Question = tuple[str, str]  # name, type


class Verdict(StrEnum):
    SAME = "same"
    DIFFERENT = "different"
    NOTHING = "nothing"
    UNREACHABLE = "unreachable"  # the DNS didn't answer: nobody knows
    CONFLICTS = "conflicts"  # what is there works against it, or against itself
    UNKNOWN = "unknown"  # not looked at yet


@dataclass(frozen=True, slots=True)
class Sentence:
    """`text` with `{placeholders}`: translate it, then fill in `facts`. As str in English."""

    text: str
    facts: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.said(str)

    def said(self, translate: Callable[[str], str]) -> str:
        return translate(self.text).format(**self.facts)


NO_SENTENCE = Sentence("")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the DNS said to one question: values as Record has them; `error` when nobody could say."""

    values: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """All that was asked of a domain.

    `nested`: how often what its SPF record includes asks the DNS; `included`: those records, and
    `is_followed`: whether the DNS told all of them.
    """

    answers: Mapping[Question, Answer] = field(default_factory=dict)
    # Of our hosts and of its MX; a host of which the DNS told nothing isn't here, one without any has none.
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    nested: int = 0
    included: tuple[str, ...] = ()
    is_followed: bool = True

    def answer(self, record: Record) -> Answer | None:
        return self.answers.get((record.name, record.type))


@dataclass(frozen=True, slots=True)
class Row:
    """A record, what was found, and what to do. `record` has the values to set: SPF keeps what is there."""

    record: Record
    verdict: Verdict
    found: tuple[str, ...]
    sentence: Sentence

    @property
    def look(self) -> str:
        """good, warn, bad, or off for what needs nobody."""
        if self.verdict is Verdict.SAME:
            return "good"
        if self.verdict is Verdict.UNKNOWN or (not self.record.is_required and self.verdict is Verdict.NOTHING):
            return "off"
        if self.verdict is Verdict.UNREACHABLE or not self.record.is_required:
            return "warn"
        return "warn" if self.verdict is Verdict.DIFFERENT else "bad"


def questions(records: Collection[Record]) -> frozenset[Question]:
    """One a record; for DMARC those of the domains above as well, whose record holds where there is none."""
    asked = {(record.name, record.type) for record in records}
    above = {(name, "TXT") for record in records if record.key == "dmarc" for name in _dmarc_above(record.name)}
    return frozenset(asked | above)


def _dmarc_above(name: str) -> tuple[str, ...]:
    """_dmarc.acme.example for _dmarc.shop.acme.example, the nearest first: the walk of RFC 9989 §4.10, bounded."""
    labels = name.split(".")[1:]
    return tuple(f"_dmarc.{'.'.join(labels[at:])}" for at in range(max(1, len(labels) - 4), len(labels) - 1))


def keeps(question: Question, value: str) -> bool:
    """Whether a value is worth keeping: of the many TXT records at a name those that are ours to judge."""
    name, kind = question
    if kind != "TXT":
        return True
    if name.startswith("_"):
        return value.lower().startswith(("v=", PROOF_BEGIN))
    return spf.is_spf(value)


def judge(records: Iterable[Record], found: Found, installation: Installation) -> tuple[Row, ...]:
    """A row for each record, in their order."""
    records = list(records)
    mx = next((found.answer(record) for record in records if record.key == "mx"), None)
    mx_hosts = _mx_hosts(mx.values) if mx else []
    return tuple(_row(record, found, installation, mx_hosts) for record in records)


def _row(record: Record, found: Found, installation: Installation, mx_hosts: Sequence[str]) -> Row:
    answer = found.answer(record)
    if answer is None:
        return Row(record, Verdict.UNKNOWN, (), NO_SENTENCE)
    if answer.error:
        return _unanswered(record, answer)
    match record.key:
        case "mx":
            return _mx(record, answer, found, installation)
        case "spf":
            return _spf(record, answer, found, installation, mx_hosts)
        case "dmarc":
            return _dmarc(record, answer, found)
        case "proof":
            return _proof(record, answer)
        case "tls-rpt":
            return _one_text(record, answer, "v=tlsrptv1")
    return _plain(record, answer)


def _unanswered(record: Record, answer: Answer) -> Row:
    return Row(record, Verdict.UNREACHABLE, (), Sentence(
        "The DNS didn't answer ({error}). Nothing changes because of it; we look again.", {"error": answer.error},
    ))


# Each kind


def _mx(record: Record, answer: Answer, found: Found, installation: Installation) -> Row:
    values = answer.values
    if not values:
        return Row(record, Verdict.NOTHING, (), Sentence(
            "It isn't there yet, so no mail comes here. Add it at your DNS provider."
        ))
    hosts = _mx_hosts(values)
    foreign = _foreign(values, found, installation)
    if "" in hosts:
        verdict = Verdict.CONFLICTS if len(hosts) > 1 else Verdict.DIFFERENT
        return Row(record, verdict, values, Sentence(
            "It says that the domain takes no mail at all (“0 .”). Replace it by what it should be."
        ))
    if not foreign:
        missing = [name for name in installation.mx if name not in hosts]
        if missing and len(missing) < len(installation.mx):
            return Row(record, Verdict.DIFFERENT, values, Sentence(
                "Mail comes here. {missing} is missing: without it, mail waits while the others are down.",
                {"missing": ", ".join(missing)},
            ))
        return Row(record, Verdict.SAME, values, NO_SENTENCE)
    others = ", ".join(sorted(foreign)[:3])
    if foreign <= _unknown(values, found, installation):
        return Row(record, Verdict.UNREACHABLE, values, Sentence(
            "The DNS didn't say where {others} is. We look again; if it stays so, change it to what it should be.",
            {"others": others},
        ))
    if len(foreign) < len(hosts):
        return Row(record, Verdict.CONFLICTS, values, Sentence(
            "Some mail goes to {others}, where it isn't seen here. Once the mailboxes are ready here, remove all MX "
            "records but ours.",
            {"others": others},
        ))
    return Row(record, Verdict.DIFFERENT, values, Sentence(
        "Mail goes to {others}. Once the mailboxes are ready here, replace it by what it should be.",
        {"others": others},
    ))


def _mx_hosts(values: Iterable[str]) -> list[str]:
    return [value.partition(" ")[2].rstrip(".").lower() for value in values]


def _foreign(values: Iterable[str], found: Found, installation: Installation) -> set[str]:
    """The hosts of an MX that are none of ours, by name or by all of their addresses."""
    ours = {address for name in {*installation.mx, installation.host} for address in found.addresses.get(name, ())}
    foreign = set()
    for host in _mx_hosts(values):
        addresses = set(found.addresses.get(host, ()))
        if host not in installation.mx and not (addresses and addresses <= ours):
            foreign.add(host)
    return foreign


def _unknown(values: Iterable[str], found: Found, installation: Installation) -> set[str]:
    """The hosts of an MX that aren't ours by name, and of whose addresses, or of our own, the DNS didn't tell."""
    ours_are_known = {*installation.mx, installation.host} <= found.addresses.keys()
    return {
        host for host in _mx_hosts(values)
        if host and host not in installation.mx
        and (host not in found.addresses or (found.addresses[host] and not ours_are_known))
    }


def receives(rows: Iterable[Row], found: Found, installation: Installation) -> bool | None:
    """Whether mail comes here: the MX that is tried first is ours. None: nobody knows."""
    row = next((row for row in rows if row.record.key == "mx"), None)
    if row is None or row.verdict is Verdict.UNKNOWN or (row.verdict is Verdict.UNREACHABLE and not row.found):
        return None
    first = min((_preference(value) for value in row.found), default=0)
    tried = [value for value in row.found if _preference(value) == first]
    foreign = _foreign(tried, found, installation)
    if foreign and foreign <= _unknown(tried, found, installation):
        return None
    return bool(tried) and not foreign


def _preference(value: str) -> int:
    number = value.partition(" ")[0]
    return int(number) if number.isascii() and number.isdigit() else 65535


def _spf(record: Record, answer: Answer, found: Found, installation: Installation, mx_hosts: Sequence[str]) -> Row:
    there = answer.values
    if any(value.endswith(CUT) for value in there):
        return Row(record, Verdict.CONFLICTS, there, Sentence(
            "The record is so long that no receiver reads it. Shorten it first, then add {ours} to it.",
            {"ours": " ".join(installation.spf)},
        ))
    instead = spf.networks_of(
        address for term in installation.spf for address in found.addresses.get(term.partition(":")[2], ())
    )
    # Some of them in place of all would leave the others out.
    asked = all(term.startswith("a:") and found.addresses.get(term[2:]) for term in installation.spf)
    merged = spf.merge(there, installation.spf, instead=instead if asked else (), nested=found.nested)
    record = with_values(record, merged)
    if not there:
        return Row(record, Verdict.NOTHING, (), Sentence(
            "It isn't there yet, so others may take its mail for forged. Add it at your DNS provider."
        ))
    if len(there) > 1:
        return Row(record, Verdict.CONFLICTS, there, Sentence(
            "There are {count} SPF records, which makes all of them void. Replace them by what it should be, one that "
            "holds what they say.", {"count": len(there)},
        ))
    one = spf.parse(there[0])
    lookups = one.lookups + found.nested
    by_itself = spf.lets_send(one, installation.spf, addresses=found.addresses, mx_hosts=mx_hosts)
    if not by_itself and not any(
        spf.lets_send(spf.parse(text), installation.spf, addresses=found.addresses) for text in found.included
    ):
        untold = [term[2:] for term in installation.spf if term.startswith("a:") and term[2:] not in found.addresses]
        if untold:  # networks may be what lets us
            return Row(record, Verdict.UNREACHABLE, there, Sentence(
                "The DNS didn't say where our own {others} is, so nobody knows whether this lets us send. We look "
                "again; you may change it to what it should be at once.",
                {"others": ", ".join(untold)},
            ))
        if not found.is_followed:
            return Row(record, Verdict.UNREACHABLE, there, Sentence(
                "The DNS didn't tell all that it includes, so nobody knows whether our servers are in it. We look "
                "again; if it stays so, change it to what it should be."
            ))
        return Row(record, Verdict.DIFFERENT, there, Sentence(
            "Our servers aren't in it. Change this record to what it should be, which keeps what you have; a "
            "second SPF record would break both."
        ))
    if lookups > spf.MOST_LOOKUPS:
        return Row(record, Verdict.CONFLICTS, there, Sentence(
            "It asks the DNS {count} times, and receivers give up after {most}: then it counts as broken. Remove an "
            "include that you no longer need.", {"count": lookups, "most": spf.MOST_LOOKUPS},
        ))
    kept = with_values(record, there[0])
    if one.all in ("all", "+all"):
        return Row(kept, Verdict.SAME, there, Sentence(
            "It lets anybody in the world send as the domain. Let it end in ~all."
        ))
    return Row(kept, Verdict.SAME, there, NO_SENTENCE)


def _dmarc(record: Record, answer: Answer, found: Found) -> Row:
    there = _dmarc_records(answer)
    if not there:
        for name in _dmarc_above(record.name):
            said = found.answers.get((name, "TXT"), Answer())
            if said.error:
                return _unanswered(record, said)
            above = _dmarc_records(said)
            if len(above) == 1 and _tags(above[0]).get("psd") != "y":
                return Row(record, Verdict.SAME, (), Sentence(
                    "It has none of its own: the record of {domain} holds for it.",
                    {"domain": name.removeprefix("_dmarc.")},
                ))
        return Row(record, Verdict.NOTHING, (), Sentence(
            "It isn't there yet; large receivers ask for it. Add it at your DNS provider."
        ))
    if len(there) > 1:
        return Row(record, Verdict.CONFLICTS, there, Sentence(
            "There are {count} DMARC records, and then none counts. Keep one.", {"count": len(there)},
        ))
    policy = _tags(there[0]).get("p", "none")  # RFC 9989 §4.7
    if policy not in ("none", "quarantine", "reject"):
        return Row(record, Verdict.DIFFERENT, there, Sentence(
            "Its p={policy} is none of none, quarantine and reject, so it doesn't count. Change it to what it "
            "should be.", {"policy": policy[:40]},
        ))
    kept = with_values(record, there[0])
    return Row(kept, Verdict.SAME, there, Sentence("Stricter than ours. Keep it.") if policy != "none" else NO_SENTENCE)


def _dmarc_records(answer: Answer) -> tuple[str, ...]:
    return tuple(value for value in answer.values if value.lower().replace(" ", "").startswith("v=dmarc1"))


def _tags(record: str) -> dict[str, str]:
    pairs = (part.lower().partition("=") for part in record.split(";") if "=" in part)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _proof(record: Record, answer: Answer) -> Row:
    there = tuple(value for value in answer.values if value.lower().startswith(PROOF_BEGIN))
    if record.values[0] in there:
        return Row(record, Verdict.SAME, record.values, NO_SENTENCE)
    if there:
        return Row(record, Verdict.DIFFERENT, there, Sentence(
            "What is there belongs to another claim. Add yours beside it."
        ))
    return Row(record, Verdict.NOTHING, (), Sentence("It isn't there yet. Add it at your DNS provider."))


def _one_text(record: Record, answer: Answer, begin: str) -> Row:
    there = tuple(value for value in answer.values if value.lower().replace(" ", "").startswith(begin))
    if not there:
        return _not_set(record)
    if len(there) > 1:
        return Row(record, Verdict.CONFLICTS, there, Sentence(
            "There are {count} such records, and then none counts. Keep one.", {"count": len(there)},
        ))
    # Whose reports go elsewhere wants it so.
    return Row(with_values(record, there[0]), Verdict.SAME, there, NO_SENTENCE)


def _plain(record: Record, answer: Answer) -> Row:
    """CNAME and SRV: ours is among what is there. An SRV's priority and weight are the owner's to choose."""
    there = answer.values
    if not there:
        return _not_set(record)
    target = record.values[0] if record.type == "CNAME" else record.values[0].split(" ", 2)[2]
    if any(value == target or (record.type == "SRV" and value.endswith(f" {target}")) for value in there):
        return Row(record, Verdict.SAME, there, NO_SENTENCE)
    return Row(record, Verdict.DIFFERENT, there, Sentence(
        "It leads elsewhere: to {there}. Change it to what it should be.", {"there": ", ".join(there[:3])[:200]},
    ))


def _not_set(record: Record) -> Row:
    if record.is_required:
        sentence = Sentence("It isn't there yet. Add it at your DNS provider.")
    elif record.key == "tls-rpt":
        sentence = Sentence("Not set. With it, others report failed TLS to us.")
    elif record.key.startswith("mta-sts"):
        sentence = Sentence("Not set. With it, others deliver to you over verified TLS only.")
    elif record.values == (NOT_OFFERED,):
        sentence = Sentence("Not set. It would tell mail programs not to try.")
    else:
        sentence = Sentence("Not set. Helps mail programs to set themselves up.")
    return Row(record, Verdict.NOTHING, (), sentence)


# In all


@dataclass(frozen=True, slots=True)
class Overall:
    """Whether mail for the domain works: a look (good, warn, bad, off), few words, and a sentence."""

    look: str
    words: Sentence
    sentence: Sentence = NO_SENTENCE


def overall(life: str, rows: Sequence[Row], receiving: bool | None) -> Overall:
    """`life` is pending, active, warning or suspended (domain_life); a provider's suspension is told elsewhere."""
    required = [row for row in rows if row.record.is_required]
    if life == "pending":
        if any(row.record.key == "proof" and row.verdict is Verdict.SAME for row in rows):
            return Overall("bad", Sentence("Can't be proved"), Sentence(
                "The TXT record is there, but a domain under or over this one belongs to somebody else here. Ask your "
                "provider."
            ))
        return Overall("off", Sentence("Waiting for proof"), Sentence("Add the TXT record that proves it is yours."))
    if life == "suspended":
        return Overall("bad", Sentence("Receives, doesn't send"), Sentence(
            "Neither its proof nor its MX was found for days. Add the TXT record again, and it sends at once."
        ))
    if all(row.verdict is Verdict.UNKNOWN for row in required):
        return Overall("off", Sentence("Not looked up yet"))
    if life == "warning":
        return Overall("warn", Sentence("The proof is missing"), Sentence(
            "Neither its proof nor its MX is there any more. Add the TXT record again, or sending stops."
        ))
    if receiving is None:
        return Overall("warn", Sentence("Its DNS doesn't answer"), Sentence(
            "Nobody knows what it says just now; we look again."
        ))
    wrong = [row for row in required if row.verdict is not Verdict.SAME]
    if not receiving:
        return Overall("bad", Sentence("Doesn't receive"), Sentence("Its mail goes elsewhere: look at MX.") if any(
            row.record.key == "mx" and row.found for row in rows
        ) else Sentence("Add the MX record, and its mail comes here."))
    if any(row.record.key != "mx" for row in wrong):
        return Overall("warn", Sentence("Receives; others may refuse what it sends"), Sentence(
            "Look at {records}.", {"records": ", ".join(dict.fromkeys(row.record.label for row in wrong))},
        ))
    if any(row.verdict is Verdict.CONFLICTS for row in wrong):
        return Overall("warn", Sentence("Sends; receives only part"), Sentence("Some mail goes elsewhere: look at MX."))
    return Overall("good", Sentence("Sends and receives"))
