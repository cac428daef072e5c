"""A second factor, or a part of one, came or went: told to whose it is, whoever did it.

To an account's address; of a mailbox's person to the recovery address and into the mailbox itself.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.mailboxes.language import language_of
from panel.mailboxes.models import Mailbox
from panel.rules.status import Status
from panel.sending import letters
from panel.sending.letters import Due, Facts, Letter, Link, Purpose, Words
from panel.tenants import decided
from panel.tenants.models import AuditEntry, User

MOST = 5000  # changes in one look
WITHIN = timedelta(days=1)
AT_ONCE = timedelta(seconds=10)

_REMOVED = "second_factor_removed"
_ACTS: dict[str, Any] = {
    "second_factor_added": gettext_lazy("an authenticator app was set up"),
    "passkey_added": gettext_lazy("a passkey was added"),
    "authenticator_removed": gettext_lazy("the authenticator app was removed"),
    "passkey_removed": gettext_lazy("a passkey was removed"),
    _REMOVED: gettext_lazy("the whole second factor was removed"),
}
_OF = {User._meta.model_name: "account", Mailbox._meta.model_name: "mailbox"}

Whose = User | Mailbox


def due(since: datetime, now: datetime) -> Iterator[Due]:
    """The letters about what the audit log says since then."""
    actions = [f"{of}.{act}" for of in _OF.values() for act in _ACTS]
    found = list(AuditEntry.objects.filter(at__gt=since, action__in=actions).order_by("at")[:MOST])
    for entry, whose in _told(found):
        for to in _readers(whose):
            yield partial(
                letters.send, to, language_of(whose), partial(_letter, whose, entry), purpose=Purpose.SECOND_FACTOR,
                about=f"second factor {entry.pk}", once_within=letters.KEPT, now=now, within=WITHIN,
            )


def _told(entries: Sequence[AuditEntry]) -> Iterator[tuple[AuditEntry, Whose]]:
    """With whose each is. The last passkey that takes the rest with it is told of once."""
    ids: dict[str, set[int]] = {name or "": set() for name in _OF}
    for each in entries:
        ids[each.subject_type].add(each.subject_id or 0)
    people: dict[str, dict[int, Any]] = {
        User._meta.model_name or "": User.objects.filter(is_active=True).in_bulk(ids["user"]),
        Mailbox._meta.model_name or "": Mailbox.objects.exclude(status=Status.CLOSED).select_related(
            "address__domain"
        ).in_bulk(ids["mailbox"]),
    }
    gone = {(each.subject_type, each.subject_id): each.at for each in entries if each.action.endswith(_REMOVED)}
    for each in entries:
        at = gone.get((each.subject_type, each.subject_id))
        whose = people[each.subject_type].get(each.subject_id or 0)
        is_told_so = each.action.endswith("passkey_removed") and at is not None and each.at <= at < each.at + AT_ONCE
        if whose is not None and not is_told_so:
            yield each, whose


def _readers(whose: Whose) -> list[str]:
    if isinstance(whose, User):
        return [str(whose.email)]
    return [*filter(None, (whose.recovery,)), str(whose)]


def _letter(whose: Whose, entry: AuditEntry) -> Letter:
    is_mailbox = isinstance(whose, Mailbox)
    name = letters.cleaned(whose, 320)
    passkey = (entry.after or entry.before).get("passkey", "")
    what = str(_ACTS[entry.action.partition(".")[2]])
    facts = [(_("When"), f"{entry.at:%Y-%m-%d %H:%M} UTC"), (_("What"), what)]
    if passkey:
        facts.append((_("Passkey"), letters.cleaned(passkey)))
    facts.append((_("Changed by"), _by(whose, entry)))
    if _is_own(whose, entry):
        facts.append((_("From where"), entry.ip or _("an unknown address")))
    follows: tuple[Words, ...] = ()
    if is_mailbox and entry.action.endswith(("_added", _REMOVED)):
        follows = (Words(
            _("The main password alone opens the mailbox now, in mail programs too.")
            if entry.action.endswith(_REMOVED)
            else _("While it is on, the main password opens no mail program: each needs an app password.")
        ),)
    if isinstance(whose, User):
        path = "/admin/account/" if whose.is_staff else "/account/"
    else:
        path = "/me/sign-ins/"
    return Letter(_("The second factor of {name} was changed").format(name=name), (
        Words(_("What protects the sign-in of {name} beside its password was changed.").format(name=name)),
        Facts(tuple(facts)),
        *follows,
        Words(_("If you know of it, you need not do anything.")),
        Words(_("If not, sign in, choose another password, and look what is set up there.")),
        Link(_("Your second factor"), letters.url(path)),
    ))


def _is_own(whose: Whose, entry: AuditEntry) -> bool:
    return entry.actor_id == (whose.pk if isinstance(whose, User) else whose.person_id)


def _by(whose: Whose, entry: AuditEntry) -> str:
    if _is_own(whose, entry):
        return _("somebody who signed in")
    if isinstance(whose, Mailbox) and decided.Freezer.of(entry.actor) is decided.Freezer.TENANT:
        return _("your organisation")
    return _("your provider")
