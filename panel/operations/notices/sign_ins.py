"""Somebody signed in from a network that this account or mailbox was never seen in: told to it, with what to do.

A panel account's sign-ins stand in the audit log, a mailbox's among its logins; a network is an IPv4
address or an IPv6 /64 (rules/lockout). The first of all is nothing new, and no network is told twice.
"""

from collections import OrderedDict
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from django.db.models import CharField
from django.db.models.lookups import Exact
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.database.indexed import Unindexed
from panel.mailboxes.language import language_of
from panel.mailboxes.models import LoginEvent, Mailbox
from panel.operations.notices.readers import OF_MAILBOX, reaches
from panel.operations.notices.told import Told
from panel.rules.lockout import network_of
from panel.rules.sign_in import PROTOCOL
from panel.rules.status import Status
from panel.sending import letters
from panel.sending.letters import Facts, Letter, Link, Purpose, Words
from panel.sending.models import Message
from panel.tenants.models import AuditEntry, User
from panel.tenants.sign_in.lockout import SIGNED_IN

MOST_READ = 20_000  # sign-ins of accounts, and of mailboxes, in one look; the next one goes on from there
MOST = 1000  # of the mailboxes' that aren't known here, in one look; the next sees the others
MOST_KNOWN = 100_000  # mailboxes' networks that aren't asked for again
WITHIN = timedelta(hours=12)

_HOW: dict[str, Any] = {
    "imap": gettext_lazy("a mail program, reading"), "pop3": gettext_lazy("a mail program, reading"),
    "submission": gettext_lazy("a mail program, sending"), "smtp": gettext_lazy("a mail program, sending"),
    "sieve": gettext_lazy("a mail program, changing rules"), PROTOCOL: gettext_lazy("this console"),
}


class Known:
    """The networks of mailboxes, as far as this process has seen them: a client that polls costs no query a minute."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, str], None] = OrderedDict()

    def tell(self, told: Told, since: datetime) -> datetime | None:
        """The letters about mailboxes' sign-ins since then, and until when it came; None for all there is."""
        seen = LoginEvent.objects.filter(
            # By their time: of those that came in there are three months.
            Exact(Unindexed("outcome", output_field=CharField()), LoginEvent.Outcome.OK.value), at__gt=since,
            mailbox__isnull=False, ip__isnull=False,
        )
        each, until = _first_of_each(seen.order_by("at").values_list("mailbox", "ip", "pk", "at"))
        unknown = {key: pk for key, pk in each.items() if key not in self._known}
        first = dict(islice(unknown.items(), MOST))
        if len(unknown) > MOST:
            until = since  # what is known by then isn't looked at again
        rows = LoginEvent.objects.select_related(
            *(f"mailbox__{path}" for path in OF_MAILBOX), "credential"
        ).in_bulk(first.values())
        new = {key: rows[pk] for key, pk in first.items() if pk in rows and rows[pk].mailbox is not None}
        if not new:
            return until
        earlier: dict[int, set[str]] = {}
        before = min(each.pk for each in new.values())
        asked = LoginEvent.objects.filter(
            mailbox__in={box for box, _network in new}, outcome=LoginEvent.Outcome.OK, pk__lt=before
        )
        for box, ip in asked.order_by().values_list("mailbox", "ip").distinct():
            earlier.setdefault(box, set()).add(network_of(ip or ""))
        for key, event in new.items():
            if told.is_leaving():
                return since
            known, mailbox = earlier.setdefault(key[0], set()), event.mailbox
            if known and key[1] not in known and mailbox is not None and _is_told(mailbox):
                told.each("sign-ins", partial(_write, mailbox, str(mailbox), key[1], event, "/me/sign-ins/", told.now))
            known.add(key[1])
            self._known[key] = None
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)
        return until


def _is_told(mailbox: Mailbox) -> bool:
    return mailbox.status == Status.ACTIVE and reaches(mailbox)


def _first_of_each(rows: Any) -> tuple[dict[tuple[int, str], int], datetime | None]:
    """The first sign-in of each from each network, and until when there were as many as one look reads.

    `rows` are of whom, from where, which and when, in the order of time.
    """
    first: dict[tuple[int, str], int] = {}
    count, last = 0, None
    for whom, ip, pk, at in rows[:MOST_READ]:
        count, last = count + 1, at
        if network := network_of(ip):
            first.setdefault((whom, network), pk)
    return first, last if count == MOST_READ else None


def tell_accounts(told: Told, since: datetime) -> datetime | None:
    """The same about accounts'."""
    of_accounts = AuditEntry.objects.filter(subject_type=User._meta.model_name, action=SIGNED_IN)
    seen = AuditEntry.objects.filter(action=SIGNED_IN, at__gt=since, ip__isnull=False, subject_id__isnull=False)
    first, until = _first_of_each(seen.order_by("at").values_list("subject_id", "ip", "pk", "at"))
    rows = AuditEntry.objects.in_bulk(first.values())
    new = {key: rows[pk] for key, pk in first.items() if pk in rows}
    if not new:
        return until
    accounts = User.objects.in_bulk({account for account, _network in new})
    earlier: dict[int, set[str]] = {}
    asked = of_accounts.filter(subject_id__in=list(accounts), pk__lt=min(each.pk for each in new.values()))
    for pk, ip in asked.order_by().values_list("subject_id", "ip").distinct():
        earlier.setdefault(pk or 0, set()).add(network_of(ip or ""))
    for (pk, network), entry in new.items():
        if told.is_leaving():
            return since
        known, account = earlier.setdefault(pk, set()), accounts.get(pk)
        if known and network not in known and account is not None and account.is_active and account.email:
            path = "/admin/account/" if account.is_staff else "/account/"
            told.each("sign-ins", partial(_write, account, str(account.email), network, entry, path, told.now))
        known.add(network)
    return until


def _write(
    whom: User | Mailbox, to: str, network: str, event: AuditEntry | LoginEvent, path: str, now: datetime
) -> list[Message]:
    letter = letters.send(
        to, language_of(whom), partial(_letter, to, network, event, path), purpose=Purpose.SIGN_IN,
        about=f"from {network}", once_within=letters.KEPT, now=now, within=WITHIN,
    )
    return [letter] if letter else []


def _letter(to: str, network: str, event: AuditEntry | LoginEvent, path: str) -> Letter:
    name = letters.cleaned(to, 320)
    facts = [(_("When"), f"{event.at:%Y-%m-%d %H:%M} UTC"), (_("Network"), network)]
    if isinstance(event, LoginEvent):
        with_what = event.credential.words if event.credential else event.credential_text
        facts += [
            (_("Password"), letters.cleaned(with_what)), (_("Program"), str(_HOW.get(event.protocol, event.protocol))),
        ]
    return Letter(_("{name}: a sign-in from a new network").format(name=name), (
        Words(_("Somebody signed in to {name} from a network that it wasn't seen in before.").format(name=name)),
        Facts(tuple(facts)),
        Words(_("If that was you, at a new place or with a new device, you need not do anything.")),
        Words(_("Not you? Open your sign-ins, shut out what isn't yours, and choose another password.")),
        Link(_("See your sign-ins"), letters.url(path)),
    ))
