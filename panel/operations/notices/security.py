"""What opens an account or a mailbox was changed: told to it, whoever did it, with what to do if it wasn't its own.

Each act that is told of stands in `_OF_ACCOUNTS` or `_OF_MAILBOXES` and in `audit.TOLD`. A mailbox is
written to where its recovery address is, too: whoever holds it could delete the letter in it.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from django.utils.translation import gettext as _

from panel.mailboxes.language import language_of
from panel.mailboxes.models import Mailbox
from panel.operations.notices.readers import OF_MAILBOX, reaches
from panel.operations.notices.told import Told
from panel.operations.password_reset import BY_LINK
from panel.rules.status import Status
from panel.sending import letters
from panel.sending.letters import Facts, Letter, Link, Purpose, Words
from panel.sending.models import Message
from panel.tenants import decided
from panel.tenants.changes import alone
from panel.tenants.models import AuditEntry, Untold, User

MOST = 200  # acts in one look
WITHIN = letters.DAY
AT_ONCE = timedelta(seconds=10)

_REMOVED = "second_factor_removed"
_PARTS = frozenset({"passkey_removed", "authenticator_removed"})

Whose = User | Mailbox
Said = Callable[[AuditEntry, str], str]  # in a sentence, of an account or mailbox of this name


def tell(told: Told) -> None:
    """The letters about what waits; what isn't reached is the next look's."""
    waiting = Untold.objects.filter(due_at__lte=told.now, entry__action__in=_SAID)
    rows = list(waiting.select_related("entry__actor")[:MOST])
    ids: dict[str, set[int]] = {str(model._meta.model_name): set() for model in (User, Mailbox)}
    for row in rows:
        ids[row.entry.subject_type].add(row.entry.subject_id or 0)
    whose: dict[str, dict[int, Any]] = {
        str(User._meta.model_name): User.objects.in_bulk(ids["user"]),
        str(Mailbox._meta.model_name): Mailbox.objects.select_related(*OF_MAILBOX).in_bulk(ids["mailbox"]),
    }
    gone = {_key(row.entry): row.entry.at for row in rows if row.entry.action.endswith(_REMOVED)}
    for row in rows:
        if told.is_leaving():
            return
        whom = whose[row.entry.subject_type].get(row.entry.subject_id or 0)
        if _is_part_of(row.entry, gone):
            whom = None
        if not told.each("security", partial(_write, row, whom, told)):
            told.put_off([row.pk])


def _key(entry: AuditEntry) -> tuple[str, int | None]:
    return entry.subject_type, entry.subject_id


def _is_part_of(entry: AuditEntry, gone: dict[tuple[str, int | None], Any]) -> bool:
    """Whether the whole second factor went with this part of it, which is told of once."""
    at = gone.get(_key(entry))
    return at is not None and entry.action.partition(".")[2] in _PARTS and entry.at <= at < entry.at + AT_ONCE


def _write(row: Untold, whom: Whose | None, told: Told) -> list[Message]:
    alone("notices")
    if not Untold.objects.filter(pk=row.pk).delete()[0]:
        return []  # another node told it
    if whom is None or not (whom.status != Status.CLOSED if isinstance(whom, Mailbox) else whom.is_active):
        return []  # of a mailbox whose domain or tenant is closed the recovery address is told
    sent = [
        letters.send(
            to, language_of(whom), partial(_letter, whom, row.entry), purpose=Purpose.SECURITY,
            about=f"{row.entry.action} {row.entry.pk}", now=told.now, within=WITHIN,
        )
        for to in _readers(whom)
    ]
    return [letter for letter in sent if letter]


def _readers(whose: Whose) -> list[str]:
    if isinstance(whose, User):
        return [str(whose.email)] if whose.email else []
    return [str(to) for to in (whose.recovery, str(whose) if reaches(whose) else "") if to]


def _letter(whose: Whose, entry: AuditEntry) -> Letter:
    name = letters.cleaned(whose, 320)
    facts = [(_("When"), f"{entry.at:%Y-%m-%d %H:%M} UTC"), (_("Changed by"), _by(whose, entry))]
    if _is_own(whose, entry) and entry.ip:
        facts.append((_("From where"), entry.ip))
    path = "/me/sign-ins/" if isinstance(whose, Mailbox) else "/admin/account/" if whose.is_staff else "/account/"
    return Letter(_("{name}: how one signs in was changed").format(name=name), (
        Words(_SAID[entry.action](entry, name)),
        Facts(tuple(facts)),
        Words(_("If you know of it, you need not do anything.")),
        Words(_("Not you? Sign in, choose another password, and take away what isn't yours.")),
        Link(_("See how you sign in"), letters.url(path)),
    ))


def _is_own(whose: Whose, entry: AuditEntry) -> bool:
    return entry.actor_id == (whose.person_id if isinstance(whose, Mailbox) else whose.pk)


def _by(whose: Whose, entry: AuditEntry) -> str:
    if _is_own(whose, entry):
        by_link = entry.reason == BY_LINK
        return _("whoever opened a link that was sent here") if by_link else _("somebody who signed in")
    if isinstance(whose, Mailbox) and decided.Freezer.of(entry.actor) is decided.Freezer.TENANT:
        return _("your organisation")
    return _("your provider")


def _passkey(told: dict[str, Any]) -> str:
    return letters.cleaned(told.get("passkey", "?"))


_OF_BOTH: dict[str, Said] = {
    "password_set": lambda entry, name: _("The password of {name} was changed.").format(name=name),
    "passkey_added": lambda entry, name: _(
        "A passkey was added, “{passkey}”: who holds it signs in to {name}."
    ).format(passkey=_passkey(entry.after), name=name),
    "passkey_removed": lambda entry, name: _("The passkey “{passkey}” of {name} was removed.").format(
        passkey=_passkey(entry.before), name=name
    ),
    "authenticator_removed": lambda entry, name: _(
        "The authenticator app of {name} was removed. Its passkeys go on."
    ).format(name=name),
}
_OF_ACCOUNTS: dict[str, Said] = {
    **_OF_BOTH,
    "second_factor_added": lambda entry, name: _(
        "A second factor was added: signing in to {name} takes a code, or a passkey, beside the password now."
    ).format(name=name),
    _REMOVED: lambda entry, name: _(
        "The second factor was removed: the password alone opens {name} now."
    ).format(name=name),
}
_OF_MAILBOXES: dict[str, Said] = {
    **_OF_BOTH,
    "second_factor_added": lambda entry, name: _(
        "A second factor was added: signing in to {name} takes a code, or a passkey, beside the main password now. "
        "While it is on, the main password opens no mail program: each needs an app password."
    ).format(name=name),
    _REMOVED: lambda entry, name: _(
        "The second factor was removed: the main password alone opens {name} now, in mail programs too."
    ).format(name=name),
}
_SAID = {
    **{f"account.{act}": said for act, said in _OF_ACCOUNTS.items()},
    **{f"mailbox.{act}": said for act, said in _OF_MAILBOXES.items()},
}
