"""The demo of a first start: an administrator, a tenant, its domain and two mailboxes.

Made once an installation. The passwords lie in demo.txt in the data folder, written before the
commit: a crash between the two leaves a file of passwords that open nothing, and the next
start makes the demo anew; passwords that open something are never lost.
"""

import os
import secrets
from pathlib import Path

from django.db import transaction

from panel.domains.services import create_domain
from panel.mailboxes.services import create_mailbox
from panel.operations.services import create_account
from panel.tenants import audit
from panel.tenants.changes import alone, hash_password
from panel.tenants.models import AuditEntry, ProviderRole, User
from panel.tenants.services import create_tenant

FILE = "demo.txt"
SEEDED = "demo.seeded"
ADMINISTRATOR = "admin@localhost"
MAILBOXES = ("shop@demo.test", "office@demo.test")
# Without the letters and digits that people mistake for others; 20 of 56 are 116 random bits.
_LETTERS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"


def new_password() -> str:
    """A random password of 20 letters and digits, to be shown once."""
    return "".join(secrets.choice(_LETTERS) for _ in range(20))


def seed(data: Path) -> bool:
    """Make the demo; whether it was made now. Its passwords are in `data`/demo.txt.

    Nothing happens when it was made before, or when the installation has panel accounts
    already: an owner nobody asked for would be a back door. Raises OSError when the file
    can't be written; nothing is made then.
    """
    if not _is_wanted():
        return False
    passwords = {login: new_password() for login in (ADMINISTRATOR, *MAILBOXES)}
    hashed = {login: hash_password(password) for login, password in passwords.items()}
    with transaction.atomic():
        alone("demo")
        if not _is_wanted():
            return False
        account = create_account(
            email=ADMINISTRATOR, password=hashed[ADMINISTRATOR], name="Administrator",
            provider_role=ProviderRole.OWNER, actor=None,
        )
        tenant = create_tenant(name="Demo", actor=None)
        create_domain(name="demo.test", tenant=tenant, verified=True, actor=None)
        for login in MAILBOXES:
            create_mailbox(address=login, password=hashed[login], name=login.partition("@")[0].title(), actor=None)
        audit.record(None, SEEDED, account, tenant=None)
        _write(data / FILE, "".join(f"{login} {password}\n" for login, password in passwords.items()))
    return True


def _is_wanted() -> bool:
    made = AuditEntry.objects.filter(action=SEEDED).exists()
    return not made and not User.objects.filter(kind=User.Kind.PANEL).exists()


def _write(path: Path, text: str) -> None:
    """Write the file as a whole, readable by its owner alone from the beginning, and durably."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
