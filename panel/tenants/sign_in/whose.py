"""Whose sign-in it is: a panel account's, or that of the person of a mailbox, who is called by its address.

What becomes of a person's stands in the audit log under the mailbox, where its tenant reads it.
"""

from typing import Any

from panel.tenants import audit
from panel.tenants.changes import changed
from panel.tenants.models import User


def name_of(account: User) -> str:
    """What is typed at the sign-in, and what the lockouts count by."""
    return str(account.email if account.kind == User.Kind.PANEL else account.mailbox)


def language_of(account: User) -> str:
    """What was chosen for it: a person's is kept with the mailbox. Empty: never."""
    return str(account.language if account.kind == User.Kind.PANEL else account.mailbox.language)


def record(account: User, act: str, *, actor: User | None, **told: Any) -> None:
    """Write into the audit log what was done to the account's sign-in, such as "passkey_added"."""
    if account.kind == User.Kind.PANEL:
        audit.record(actor, f"account.{act}", account, tenant=None, **told)
    else:
        mailbox = account.mailbox
        audit.record(actor, f"mailbox.{act}", mailbox, tenant=mailbox.address.tenant, **told)


def programs_changed(account: User) -> None:
    """Tell the mailserver's caches: with a second factor a mailbox's main password opens no mail program."""
    if account.kind == User.Kind.PERSON:
        changed(account.mailbox.address.domain.name)
