"""A person's first page: whether the mailbox works, how mail programs are set up, what happened lately."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.console import own_sign_ins
from panel.console.access import mailbox_page
from panel.console.filled import Filled
from panel.console.frame import page
from panel.console.own_passwords import shown as shown_password
from panel.console.own_programs import offered
from panel.console.places import MailboxPlace
from panel.domains.models import Proof
from panel.mailboxes.models import Credential, Mailbox, MailRules
from panel.mailboxes.storage import Storage
from panel.rules.status import Status, strictest
from panel.sending.models import Recipient
from panel.sending.sent import listed, sent_with
from panel.sending.used import Bar, used, window_words
from panel.tenants.standing import with_parents

PASSWORDS = 5  # on the first page
MOST_CREDENTIALS = 200  # of the newest passwords
LATEST = 5
SIGN_INS = 3


@dataclass(frozen=True, slots=True)
class Works:
    """Whether it does: the heading, and where it doesn't, what that means and what helps."""

    heading: str
    look: str = ""  # bad or warn
    what: str = ""
    helps: str = ""


@mailbox_page()
def home(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """Everything at a glance; each part leads to its own page."""
    mailbox = place.mailbox
    usage = Storage.of(mailbox)
    storage = Filled(usage.used_bytes, mailbox.quota_bytes)
    bars = [(_("Sent, {window}").format(window=window_words(each.window)), each) for each in used([mailbox]).bars]
    works = _works(mailbox, storage, [bar for _title, bar in bars])
    credentials = list(Credential.objects.filter(mailbox=mailbox).order_by("-pk")[:MOST_CREDENTIALS])
    events = own_sign_ins.newest(mailbox)
    apps = [shown_password(each) for each in credentials if each.kind == Credential.Kind.APP]
    sent = sent_with({*(each.pk for each in credentials), *(each.credential_id for each in events)})
    return page(
        request, place, "console/me.html", works.heading, works=works, came=_came_last(mailbox), storage=storage,
        bars=bars, passwords=apps[:PASSWORDS], has_more_passwords=len(apps) > PASSWORDS,
        sent=listed(list(sent.order_by("-pk")[:LATEST])),
        sign_ins=own_sign_ins.latest(events, credentials, SIGN_INS),
        rules=_rules(MailRules.objects.filter(mailbox=mailbox).first()), **offered(),
    )


def _works(mailbox: Mailbox, storage: Filled, bars: Sequence[Bar]) -> Works:
    """The first of what is the matter, the worst first."""
    domain = mailbox.address.domain
    ask = _("Ask whoever looks after {domain}.").format(domain=domain)
    status = strictest(map(Status, (mailbox.status, domain.status, *(
        each.status for each in with_parents(mailbox.address.tenant)
    ))))
    if domain.proof == Proof.PENDING:
        return Works(
            _("Your mailbox waits for its domain"), "bad",
            _("Nothing comes or goes until it is proved whose {domain} is.").format(domain=domain), ask,
        )
    if not status.may_send:
        why = mailbox.status_reason if mailbox.status == status else ""
        return Works(
            _("You can read, but not send"), "bad",
            _("Sending is stopped: {reason}.").format(reason=why.rstrip(".。")) if why else _(
                "Sending is stopped for now."
            ), ask,
        )
    if domain.proof == Proof.LAPSED:
        return Works(
            _("You can read, but not send"), "bad",
            _("The proof of {domain} lapsed. Mail still comes.").format(domain=domain), ask,
        )
    if storage.allowed and (storage.used or 0) >= storage.allowed:
        return Works(
            _("Your mailbox is full"), "bad", _("New mail doesn't fit in."),
            _("Delete what you don't need, in Junk and Trash first, or ask for more room."),
        )
    for bar in bars:
        if bar.allowed is not None and bar.used is not None and bar.used >= bar.allowed:
            return Works(
                _("You can read; sending goes on soon"), "warn",
                _("You have written to as many recipients as you may in {window}.").format(
                    window=window_words(bar.window)
                ),
                _("Send the rest later; nothing is lost."),
            )
    return Works(_("Your mailbox works"))


def _came_last(mailbox: Mailbox) -> datetime | None:
    """When the newest message came: one query."""
    rows = Recipient.objects.filter(resolved=str(mailbox.address), state=Recipient.State.DELIVERED).order_by("-pk")
    at = rows.values_list("message__accepted_at", flat=True).first()
    # The address may have been another mailbox's before.
    return at if at is not None and at >= mailbox.created_at else None


def _rules(rules: MailRules | None) -> dict[str, str]:
    if rules is None:
        return {}
    forward = ", ".join(rules.forward_to[:2]) + ("…" if len(rules.forward_to) > 2 else "")
    over = rules.vacation_until is not None and rules.vacation_until < timezone.now().date()
    return {
        "forward": forward, "keeps": _("a copy stays here") if rules.forward_keep else _("nothing stays here"),
        "vacation": "" if not rules.vacation else _("over") if over else _("on"),
    }
