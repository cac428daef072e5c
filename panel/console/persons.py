"""Whose mailbox a session may see: the person came in with its main password, and that still holds.

A session remembers by which stored password it was opened, as a fingerprint. Another password,
a frozen one, or a mailbox that may no longer log in ends it with its next request.
"""

import ipaddress
from collections.abc import Sequence

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from panel.client_address import client_ip
from panel.mailboxes import passwords
from panel.mailboxes.models import Credential, Mailbox
from panel.rules.addresses import BadAddress, parse_address
from panel.rules.status import Status, strictest
from panel.tenants.models import User
from panel.tenants.standing import with_parents

OPENED_BY = "opened_by"  # in the session: the fingerprint of the main password


def credential_of(login: str) -> Credential | None:
    """The main password of the mailbox with this address, whether or not it opens anything now."""
    try:
        address = parse_address(login.strip()).canonical
    except BadAddress:
        return None
    named = {"mailbox__address__local_part": address.local_part, "mailbox__address__domain__name": address.domain}
    return _main_passwords().filter(**named).first()


def may_open(credential: Credential, ip: str | None) -> bool:
    """Whether it opens the mailbox's page now and from there, as it opens the mailbox (rules/policy)."""
    expired = credential.expires_at is not None and credential.expires_at <= timezone.now()
    address = credential.mailbox.address
    stati = (credential.mailbox.status, address.domain.status, *(each.status for each in with_parents(address.tenant)))
    may_log_in = strictest(map(Status, stati)).may_log_in
    return credential.frozen_at is None and not expired and may_log_in and _is_from(credential.networks, ip)


def remember(request: HttpRequest, credential: Credential) -> None:
    """The session was opened with this password."""
    request.session[OPENED_BY] = _began_as(credential)


def mailbox_of(request: HttpRequest, account: User) -> Mailbox | None:
    """The mailbox that this session may see: one query. None for whoever has none, or not any more."""
    if account.kind != User.Kind.PERSON:
        return None
    credential = _main_passwords().filter(mailbox__person=account).first()
    if credential is None or not may_open(credential, client_ip(request)):
        return None
    return credential.mailbox if request.session.get(OPENED_BY) == _began_as(credential) else None


def _began_as(credential: Credential) -> str:
    # What was hashed anew is still the same password.
    return credential.began_as or passwords.fingerprint(credential.secret)


def _is_from(networks: Sequence[str], ip: str | None) -> bool:
    if not networks:
        return True
    try:
        address = ipaddress.ip_address(ip or "")
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(network, strict=False) for network in networks)


def _main_passwords() -> "QuerySet[Credential]":
    return Credential.objects.filter(kind=Credential.Kind.MAIN).select_related(
        "mailbox__person", "mailbox__usage", "mailbox__address__domain", "mailbox__address__tenant__plan",
        "mailbox__address__tenant__parent__parent",
    )
