"""One search for everything: what a text names among the rows that somebody may see.

Asks a fixed number of questions, each of an index but for the names of tenants, which are few. Nothing is
counted: of each kind the first are shown, and where there are more, the list has them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.db.models import CharField, Q, QuerySet, Value
from django.urls import reverse
from django.utils.translation import gettext as _

from panel.database.indexed import Folded, begins, begins_folded
from panel.domains.models import Domain, DomainAlias, Proof
from panel.mailboxes import found as mailboxes
from panel.mailboxes.models import Address, Alias, LoginEvent, Mailbox
from panel.rules.searched import Searched
from panel.sending import found as sending
from panel.sending.models import Message, Recipient
from panel.tenants.models import Tenant, User
from panel.tenants.shown import moment
from panel.tenants.standing import status_words

MOST = 10  # of each kind
LOOKED_AT = 300  # addresses, of mailboxes and aliases alike


class State(NamedTuple):
    look: str  # good, warn, bad or off
    word: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that was found. `words` tell it from others: plain text, escaped where it is shown."""

    name: str
    url: str
    words: tuple[str, ...] = ()
    at: datetime | None = None
    state: State | None = None
    mono: bool = True

    @property
    def when(self) -> str:
        return moment(self.at) if self.at else ""


@dataclass(slots=True)
class Group:
    """What was found of one kind; `url` is the list with all of it."""

    title: str
    hits: list[Hit] = field(default_factory=list)
    more: bool = False
    url: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """An address with what stands behind it, in the order of HELD."""

    local_part: str
    domain: str
    tenant: str
    mailbox: int | None
    name: str | None
    status: int | None
    alias: int | None
    leads_to: str = ""

    @property
    def address(self) -> str:
        return f"{self.local_part or '*'}@{self.domain}"


HELD = (
    "local_part", "domain__name", "tenant__name", "mailbox__pk", "mailbox__name", "mailbox__status", "alias__pk",
)


def search(user: User, typed: str) -> tuple[Searched, list[Group]]:
    """What the text means, and what it names of each kind; kinds without a hit are left out."""
    searched = Searched.of(typed)
    if not searched.text:
        return searched, []
    known = _by_id(user, searched)
    if known:
        return searched, known
    groups = [group for group in _everything(user, searched) if group.hits]
    return searched, groups


def single(groups: Iterable[Group]) -> str | None:
    """Where to go at once when one thing was found."""
    hits = [hit for group in groups for hit in group.hits]
    return hits[0].url if len(hits) == 1 else None


def _by_id(user: User, searched: Searched) -> list[Group]:
    number = sending.number_of(searched)
    if number is None:
        return []
    rows = Message.objects.for_user(user).filter(pk=number)
    return [Group(_("Messages"), [_message(row) for row in rows])] if rows else []


def _everything(user: User, searched: Searched) -> Iterable[Group]:
    yield _group(_("Tenants"), Tenant, searched, _tenants(user, searched), _tenant)
    yield from _domains(user, searched)
    yield from _addresses(user, searched)
    yield _trace(_("Messages"), Message, searched, sending.messages(Message.objects.for_user(user), searched, MOST),
                 _message)
    yield _trace(_("Recipients"), Recipient, searched,
                 sending.recipients(Recipient.objects.for_user(user), searched, MOST), _recipient)
    logins = mailboxes.logins(LoginEvent.objects.for_user(user), searched)
    yield _group(_("Sign-ins"), LoginEvent, searched, _first(logins), _login)
    yield _group(_("Accounts"), User, searched, _accounts(user, searched), _account)


def _first(rows: QuerySet | None) -> list[Any]:
    return [] if rows is None else list(rows[: MOST + 1])


def _group(
    title: str, model: Any, searched: Searched, rows: list[Any], as_hit: Callable[[Any], Hit]
) -> Group:
    return Group(title, [as_hit(row) for row in rows[:MOST]], len(rows) > MOST, _list(model, searched))


def _trace(
    title: str, model: Any, searched: Searched, found: sending.Found, as_hit: Callable[[Any], Hit]
) -> Group:
    rows = model.objects.in_bulk(found.pks) if found.pks else {}
    return Group(title, [as_hit(rows[pk]) for pk in found.pks if pk in rows], found.more, _list(model, searched))


def _tenants(user: User, searched: Searched) -> list[Tenant]:
    if not searched.name or searched.local_part is not None:
        return []
    return list(Tenant.objects.for_user(user).filter(name__icontains=searched.name).order_by("name")[: MOST + 1])


def _domains(user: User, searched: Searched) -> list[Group]:
    """Both kinds by one question; a whole name is that domain alone."""
    if not searched.begins or searched.local_part:
        return []
    name = searched.domain or searched.at_domain or searched.begins
    columns = ("name", "pk", "kind_", "proof")
    own = Domain.objects.for_user(user).filter(begins("name", name)).order_by()
    other = DomainAlias.objects.for_user(user).filter(begins("name", name)).order_by()
    rows = list(
        own.annotate(kind_=Value("domain", CharField())).values_list(*columns)
        .union(other.annotate(kind_=Value("alias", CharField())).values_list(*columns), all=True)
        .order_by("name")[: 2 * (MOST + 1)]
    )
    if rows and rows[0][0] == name:
        rows = [row for row in rows if row[0] == name]
    return [
        _group(_("Domains"), Domain, searched, [row for row in rows if row[2] == "domain"], _domain),
        _group(_("Domain aliases"), DomainAlias, searched, [row for row in rows if row[2] == "alias"], _domain_alias),
    ]


def _addresses(user: User, searched: Searched) -> list[Group]:
    """Mailboxes by address and by their person's name; aliases by address and by what they lead to."""
    held = mailboxes.addresses(Address.objects.for_user(user), searched)
    rows = [] if held is None else [Held(*row) for row in held.values_list(*HELD)[:LOOKED_AT]]
    rows.sort(key=lambda row: (row.local_part, row.domain))
    boxes = [row for row in rows if row.mailbox is not None]
    known = {row.mailbox for row in boxes}
    boxes += [row for row in _named(user, searched) if row.mailbox not in known]
    aliases = [row for row in rows if row.alias is not None]
    if searched.address:
        known = {row.alias for row in aliases}
        leading = Alias.objects.for_user(user).filter(targets__target=searched.address).order_by("pk")
        columns = [f"address__{name}" for name in HELD]
        found = [replace(Held(*row), leads_to=searched.address) for row in leading.values_list(*columns)[: MOST + 1]]
        aliases += [row for row in found if row.alias not in known]
    more = len(rows) == LOOKED_AT
    groups = [
        _group(_(
            "Mailboxes"
        ), Mailbox, searched, boxes, _mailbox), _group(_("Aliases"), Alias, searched, aliases, _alias),
    ]
    for group in groups:
        group.more |= more
    return groups


def _named(user: User, searched: Searched) -> list[Held]:
    if not searched.name or searched.local_part is not None:
        return []
    rows = Mailbox.objects.for_user(user).filter(begins_folded("name", searched.name)).order_by(Folded("name"))
    return [Held(*row) for row in rows.values_list(*(f"address__{name}" for name in HELD))[: MOST + 1]]


def _accounts(user: User, searched: Searched) -> list[User]:
    if not searched.name:
        return []
    accounts = User.objects.filter(kind=User.Kind.PANEL)
    if not user.has_provider_role:
        accounts = accounts.filter(memberships__tenant__in=Tenant.objects.for_user(user)).distinct()
    found = Q(begins_folded("name", searched.name))
    if searched.begins:
        found |= begins("email", searched.begins)
    return list(accounts.filter(found).order_by("email")[: MOST + 1])


# What stands in a line


def _tenant(tenant: Tenant) -> Hit:
    return Hit(tenant.name, _page("tenants_tenant", tenant.pk), state=_state(tenant.status), mono=False)


def _domain(row: tuple[str, int, str, str]) -> Hit:
    return Hit(row[0], _page("domains_domain", row[1]), state=_proof(row[3]))


def _domain_alias(row: tuple[str, int, str, str]) -> Hit:
    return Hit(row[0], _page("domains_domainalias", row[1]), state=_proof(row[3]))


def _mailbox(row: Held) -> Hit:
    words = tuple(filter(None, (row.name, row.tenant)))
    return Hit(row.address, _page("mailboxes_mailbox", row.mailbox), words, state=_state(row.status))


def _alias(row: Held) -> Hit:
    words = (_("leads to {address}").format(address=row.leads_to), row.tenant) if row.leads_to else (row.tenant,)
    return Hit(row.address, _page("mailboxes_alias", row.alias), words)


def _message(message: Message) -> Hit:
    words = (_from(message.reverse_path or "<>"), message.subject or _("(no subject)"))
    return Hit(message.queue_id, _page("sending_message", message.pk), words, message.accepted_at)


LOOKS = {"waiting": "warn", "delivered": "good", "failed": "bad", "discarded": "off"}


def _recipient(recipient: Recipient) -> Hit:
    held = recipient.state == Recipient.State.WAITING and recipient.holds
    to = () if recipient.resolved == recipient.original else (
        _("leads to {address}").format(address=recipient.resolved),
    )
    state = State("bad", _("held")) if held else State(LOOKS[recipient.state], str(recipient.get_state_display()))
    return Hit(
        recipient.original, _page("sending_recipient", recipient.pk), (*to, recipient.last_reply)[:2],
        recipient.settled_at, state,
    )


LOGIN_LOOKS = {
    "ok": "good", "wrong": "warn", "refused": "warn", "scope": "warn", "factor": "warn", "suspended": "off",
    "locked": "bad",
}


def _login(event: LoginEvent) -> Hit:
    words = (_from(event.ip or _("many networks")), event.protocol)
    return Hit(
        event.login, _page("mailboxes_loginevent", event.pk), words, event.last_at,
        State(LOGIN_LOOKS[event.outcome], str(event.get_outcome_display())),
    )


def _account(account: User) -> Hit:
    role = str(account.get_provider_role_display()) if account.provider_role else ""
    words = tuple(filter(None, (account.name, role)))
    state = None if account.is_active else State("off", _("switched off"))
    return Hit(str(account), _page("tenants_user", account.pk), words, state=state)


def _state(status: int | None) -> State | None:
    if status is None:
        return None
    return State(("good", "warn", "bad", "off")[status], status_words(status))


def _proof(proof: str) -> State:
    return State({"proved": "good", "pending": "warn", "lapsed": "bad"}[proof], str(Proof(proof).label))


def _from(place: str) -> str:
    return _("from {place}").format(place=place)


def _page(view: str, pk: int | None) -> str:
    return reverse(f"admin:{view}_change", args=(pk,))


def _list(model: Any, searched: Searched) -> str:
    url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{url}?{urlencode({'q': searched.text})}"
