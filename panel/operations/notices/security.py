"""What opens an account or a mailbox was changed: told to it, whoever did it, with what to do if it wasn't its own.

Each act that is told of stands in `_SAID` and in `audit.TOLD`; its audit entry is about a panel account,
or about a mailbox's person, who is written to at the mailbox.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.utils.translation import gettext as _

from panel.mailboxes.language import language_of
from panel.mailboxes.models import Mailbox
from panel.operations.notices.told import Told
from panel.rules.status import Status
from panel.sending import letters
from panel.sending.letters import Facts, Letter, Link, Purpose, Words
from panel.sending.models import Message
from panel.tenants.changes import alone
from panel.tenants.models import AuditEntry, Untold, User

MOST = 200  # acts in one look
WITHIN = letters.DAY

Said = Callable[[AuditEntry, str], str]  # in a sentence, of an account or mailbox of this name


def tell(told: Told) -> None:
    """The letters about what waits; what isn't reached is the next look's."""
    waiting = Untold.objects.filter(due_at__lte=told.now, entry__action__in=_SAID)
    rows = list(waiting.select_related("entry")[:MOST])
    about = {row.entry.subject_id or 0 for row in rows if row.entry.subject_type == User._meta.model_name}
    accounts: dict[int, User] = User.objects.in_bulk(about)
    boxes = {box.person_id: box for box in Mailbox.objects.filter(person__in=about).select_related("address__domain")}
    for row in rows:
        if told.is_leaving():
            return
        account = accounts.get(row.entry.subject_id or 0)
        whom = boxes.get(account.pk) if account and account.kind == User.Kind.PERSON else account
        if not told.each("security", partial(_write, row, whom, told)):
            told.put_off([row.pk])


def _write(row: Untold, whom: User | Mailbox | None, told: Told) -> list[Message]:
    alone("notices")
    if not Untold.objects.filter(pk=row.pk).delete()[0]:
        return []  # another node told it
    if whom is None or not (whom.status == Status.ACTIVE if isinstance(whom, Mailbox) else whom.is_active):
        return []
    to = str(whom) if isinstance(whom, Mailbox) else str(whom.email or "")
    letter = to and letters.send(
        to, language_of(whom), partial(_letter, whom, row.entry), purpose=Purpose.SECURITY,
        about=f"{row.entry.action} {row.entry.pk}", now=told.now, within=WITHIN,
    )
    return [letter] if letter else []


def _letter(whom: User | Mailbox, entry: AuditEntry) -> Letter:
    name = letters.cleaned(whom, 320)
    facts = [(_("When"), f"{entry.at:%Y-%m-%d %H:%M} UTC")]
    if entry.ip:
        facts.append((_("From where"), entry.ip))
    path = "/me/sign-ins/" if isinstance(whom, Mailbox) else "/admin/account/" if whom.is_staff else "/account/"
    return Letter(_("{name}: how one signs in was changed").format(name=name), (
        Words(_SAID[entry.action](entry, name)),
        Facts(tuple(facts)),
        Words(_("If you know of it, you need not do anything.")),
        Words(_("Not you? Sign in, choose another password, and take away what isn't yours.")),
        Link(_("See how you sign in"), letters.url(path)),
    ))


def _passkey(told: dict[str, Any]) -> str:
    return letters.cleaned(told.get("passkey", "?"))


_SAID: dict[str, Said] = {
    "account.password_set": lambda entry, name: _("The password of {name} was changed.").format(name=name),
    "account.passkey_added": lambda entry, name: _(
        "A passkey was added, “{passkey}”: who holds it signs in to {name}."
    ).format(passkey=_passkey(entry.after), name=name),
    "account.passkey_removed": lambda entry, name: _("The passkey “{passkey}” of {name} was removed.").format(
        passkey=_passkey(entry.before), name=name
    ),
    "account.second_factor_added": lambda entry, name: _(
        "A second factor was added: signing in to {name} takes a code, or a passkey, beside the password now."
    ).format(name=name),
    "account.second_factor_removed": lambda entry, name: _(
        "The second factor was removed: the password alone opens {name} now."
    ).format(name=name),
    "account.authenticator_removed": lambda entry, name: _(
        "The authenticator app of {name} was removed. Its passkeys go on."
    ).format(name=name),
}
