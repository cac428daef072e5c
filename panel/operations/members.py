"""Somebody becomes a tenant's member by an address, whether or not it has an account already.

Neither what is answered nor the time that it takes tells which of the two it was.
"""

import secrets
from collections.abc import Callable

from django.db import transaction

from panel.operations import password_reset
from panel.operations.services import create_account
from panel.tenants.changes import HashedPassword, hash_password
from panel.tenants.models import Tenant, User
from panel.tenants.services import create_membership


def unknown_password() -> HashedPassword:
    """One that nobody ever knows. Make it before the transaction, for a known account too: the time tells nothing."""
    return hash_password(secrets.token_urlsafe(32))


def add_member(
    email: str, tenant: Tenant, role: str, *, link: Callable[[str], str], password: HashedPassword | None = None,
    actor: User | None, ip: str | None = None,
) -> str:
    """Make the account of this address a member, made if there is none; then it is sent a link to choose a password.

    `link` makes the path of a token. Gives the address as it is kept. Raises ServiceError (field "email" or "user").
    """
    known: User | None = User.objects.filter(kind=User.Kind.PANEL, email=email.strip().lower()).first()
    password = password or unknown_password()
    with transaction.atomic():
        account = known or create_account(email=email, password=password, actor=actor, ip=ip)
        create_membership(user=account, tenant=tenant, role=role, actor=actor, ip=ip)
        # TooMany is a ServiceError: then nothing was made. It comes for a known account too, or it would tell.
        password_reset.ask(str(account.email), ip=ip, link=link if known is None else None)
    return str(account.email)
