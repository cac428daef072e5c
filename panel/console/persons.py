"""Whose mailbox a session may see: the person came in with its main password, and that still holds.

A session remembers by which stored password it was opened, as a fingerprint. Another password,
a frozen one, or a mailbox that may no longer log in ends it with its next request. A panel account that is tied
to mailboxes (mailboxes/links) reaches them by the same rule; a session of a mailbox reaches nothing else.
Where the mailbox's person has a second factor, or must have one, the account has one as well: else the tie
would lead around it.
"""

from django.db import transaction
from django.db.models import Exists
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import override

from panel.client_address import client_ip
from panel.mailboxes import links
from panel.mailboxes.main_passwords import is_beside_factor, main_passwords, may_open
from panel.mailboxes.models import Credential, LoginEvent, Mailbox, MailboxLink
from panel.rules.sign_in import PROTOCOL
from panel.rules.status import Status
from panel.tenants.models import SecondFactor, User

OPENED_BY = "opened_by"  # in the session: the fingerprint of the main password
CAME_TO = "came_to"  # in the session of a panel account: the mailboxes whose login history tells of it
CHOSEN = "mailbox"  # in the session of a panel account: which of the mailboxes that it is tied to


def remember(request: HttpRequest, credential: Credential) -> None:
    """The session was opened with this password, or goes on with it."""
    if isinstance(request.user, User) and request.user.kind == User.Kind.PANEL:
        links.keep(credential, request.user)
    else:
        request.session[OPENED_BY] = links.began_as(credential)


def mailbox_of(request: HttpRequest, account: User) -> Mailbox | None:
    """The mailbox that this session may see: one query, or two by a tie. None for whoever has none, or not any more."""
    if account.kind == User.Kind.PANEL:
        reached = {each.pk: each for each in reached_by(account, client_ip(request))}
        asked = request.session.get(CHOSEN)
        chosen = reached.get(asked or 0)
        if chosen is None and (asked is None or request.method in ("GET", "HEAD")):
            chosen = next(iter(reached.values()), None)
        if chosen is not None and chosen.pk != asked:
            request.session[CHOSEN] = chosen.pk  # what is sent from its pages is never another one's
        return chosen
    credential = opening(account, client_ip(request))
    if credential is None:
        return None
    return credential.mailbox if request.session.get(OPENED_BY) == links.began_as(credential) else None


def opening(person: User, ip: str | None) -> Credential | None:
    """The main password of the person's mailbox, if it opens it now and from there: one query."""
    credential = main_passwords().filter(mailbox__person=person).first()
    return credential if credential is not None and may_open(credential, ip) else None


def came_by_tie(request: HttpRequest, account: User, mailbox: Mailbox) -> None:
    """The mailbox's login history tells, once a session, of an account that came by its tie."""
    known = request.session.get(CAME_TO, [])
    if mailbox.pk in known:
        return
    main = Credential.objects.filter(mailbox=mailbox, kind=Credential.Kind.MAIN).first()
    if main is not None:
        main.mailbox = mailbox
        came_in(main, str(account), client_ip(request))
        request.session[CAME_TO] = [*known, mailbox.pk]


@transaction.atomic
def came_in(credential: Credential, login: str, ip: str | None, *, passkey: str = "") -> None:
    """Write into the mailbox's login history that somebody came in here, as `login`; by a passkey instead of it."""
    mailbox, now = credential.mailbox, timezone.now()
    with override("en"):  # what is kept of it
        kept = f'passkey "{passkey}"'[:120] if passkey else str(credential)
    LoginEvent.objects.create(
        at=now, last_at=now, tenant=mailbox.address.tenant, mailbox=mailbox,
        credential=None if passkey else credential, credential_text=kept, login=login, ip=ip, protocol=PROTOCOL,
        outcome=LoginEvent.Outcome.OK,
    )


def reached_by(account: User, ip: str | None) -> list[Mailbox]:
    """The mailboxes that a panel account reaches by its ties, now and from there: two queries, or one for none."""
    if account.is_staff:
        return []
    ties = dict(MailboxLink.objects.filter(account=account).values_list("mailbox", "began_as")[: links.MOST])
    if not ties:
        return []
    own = SecondFactor.objects.filter(user=account)  # its sessions are those that were opened with it
    rows = main_passwords().filter(mailbox__in=ties).order_by("mailbox")
    return [
        each.mailbox for each in rows.annotate(asks=is_beside_factor(), has_own=Exists(own))
        if ties[each.mailbox_id] == links.began_as(each) and may_open(each, ip)
        and (each.has_own or not (each.asks or each.mailbox.address.tenant.people_second_factor_required))
    ]


def has_ties(account: User) -> Exists:
    """Whether the account is tied to a mailbox that may be open: a part of another query, for the frame's sake."""
    return Exists(MailboxLink.objects.filter(
        account=account, mailbox__status__lt=Status.SUSPENDED, mailbox__credentials__kind=Credential.Kind.MAIN,
        mailbox__credentials__frozen_at=None,
    ))
