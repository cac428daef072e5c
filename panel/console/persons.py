"""Whose mailbox a session may see: the person came in with its main password, and that still holds.

A session remembers by which stored password it was opened, as a fingerprint. Another password,
a frozen one, or a mailbox that may no longer log in ends it with its next request. A panel account that is tied
to mailboxes (mailboxes/links) reaches them by the same rule; a session of a mailbox reaches nothing else.
"""

from django.db.models import Exists
from django.http import HttpRequest

from panel.client_address import client_ip
from panel.mailboxes import links
from panel.mailboxes.main_passwords import main_passwords, may_open
from panel.mailboxes.models import Credential, Mailbox, MailboxLink
from panel.rules.status import Status
from panel.tenants.models import User

OPENED_BY = "opened_by"  # in the session: the fingerprint of the main password
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
        chosen = reached.get(request.session.get(CHOSEN, 0))
        return chosen or next(iter(reached.values()), None)
    credential = main_passwords().filter(mailbox__person=account).first()
    if credential is None or not may_open(credential, client_ip(request)):
        return None
    return credential.mailbox if request.session.get(OPENED_BY) == links.began_as(credential) else None


def reached_by(account: User, ip: str | None) -> list[Mailbox]:
    """The mailboxes that a panel account reaches by its ties, now and from there: two queries, or one for none."""
    if account.is_staff:
        return []
    ties = dict(MailboxLink.objects.filter(account=account).values_list("mailbox", "began_as")[: links.MOST])
    credentials = main_passwords().filter(mailbox__in=ties).order_by("mailbox") if ties else ()
    return [
        each.mailbox for each in credentials
        if ties[each.mailbox_id] == links.began_as(each) and may_open(each, ip)
    ]


def has_ties(account: User) -> Exists:
    """Whether the account is tied to a mailbox that may be open: a part of another query, for the frame's sake."""
    return Exists(MailboxLink.objects.filter(
        account=account, mailbox__status__lt=Status.SUSPENDED, mailbox__credentials__kind=Credential.Kind.MAIN,
        mailbox__credentials__frozen_at=None,
    ))
