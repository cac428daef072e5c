"""Builds valid worlds, row by row, for tests of what reads the database.

Tests of the services themselves call the services instead.
"""

from functools import cache

from django.utils import timezone

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes import passwords
from panel.mailboxes.models import (
    Address,
    Alias,
    AliasTarget,
    BlockEntry,
    Credential,
    LoginEvent,
    Mailbox,
    MailRules,
)
from panel.sending.models import SendingLimit
from panel.tenants.models import DirectoryChange, Plan, Tenant, User

PASSWORD = "right horse battery"

# Thousands of worlds have a mailbox with the same password; argon2 takes 26 ms or more each time.
@cache
def hash_once(password: str) -> str:
    """By our own hasher, whichever a test has put in its place: other tests find the hash as well."""
    hasher = passwords.Argon2Hasher()
    return hasher.encode(password, hasher.salt())


def tenant(name: str = "Demo", **fields) -> Tenant:
    return Tenant.objects.create(name=name, plan=Plan.objects.get(name="Standard"), **fields)


def domain(name: str = "demo.test", owner: Tenant | None = None, **fields) -> Domain:
    """A proved domain of `owner`; without one a shared domain."""
    fields.setdefault("proof", "proved")
    kind = Domain.Kind.OWN if owner else Domain.Kind.SHARED
    return Domain.objects.create(name=name, kind=kind, tenant=owner, **fields)


def domain_alias(name: str, of: Domain, **fields) -> DomainAlias:
    fields.setdefault("proof", "proved")
    return DomainAlias.objects.create(name=name, domain=of, **fields)


def address(text: str, owner: Tenant | None = None) -> Address:
    """The address row; `owner` is needed in a shared domain. "@demo.test" is the catch-all."""
    local_part, _, name = text.rpartition("@")
    hosted = Domain.objects.get(name=name)
    return Address.objects.create(local_part=local_part, domain=hosted, tenant=owner or hosted.tenant)


def mailbox(text: str, owner: Tenant | None = None, password: str = PASSWORD, **fields) -> Mailbox:
    person = User.objects.create(kind=User.Kind.PERSON, email=None, password="!")
    made = Mailbox.objects.create(**Mailbox.standing_at(address(text, owner)), person=person, **fields)
    Credential.objects.create(mailbox=made, kind=Credential.Kind.MAIN, secret=hash_once(password))
    return made


def app_password(of: Mailbox, label: str = "web shop", scopes=("submission",), **fields) -> tuple[Credential, str]:
    """The credential and its secret."""
    secret = passwords.new_app_secret()
    credential = Credential.objects.create(
        mailbox=of, label=label, scopes=list(scopes), secret=passwords.hash_app(secret), **fields
    )
    return credential, secret


def alias(text: str, *targets: str, owner: Tenant | None = None) -> Alias:
    made = Alias.objects.create(**Alias.standing_at(address(text, owner)))
    AliasTarget.objects.bulk_create(AliasTarget(alias=made, target=target) for target in targets)
    return made


def rules(of: Mailbox, blocked=(), **fields) -> MailRules:
    """rules(mailbox, junk=True, blocked=["spam.test"]), as MailRules has them."""
    made, _ = MailRules.objects.update_or_create(mailbox=of, defaults=fields)
    BlockEntry.objects.bulk_create(BlockEntry(mailbox=of, sender=sender) for sender in blocked)
    return made


def limit(subject, **windows: int | None) -> None:
    """limit(mailbox, hour=10): a SendingLimit row a window; None is unlimited."""
    field = type(subject).__name__.lower()
    owner = {
        "tenant": lambda: subject, "domain": lambda: subject.tenant, "mailbox": lambda: subject.address.tenant,
        "credential": lambda: subject.mailbox.address.tenant,
    }[field]()
    for window, recipients in windows.items():
        SendingLimit.objects.update_or_create(
            **{field: subject}, window=window, defaults={"recipients": recipients, "owner": owner}
        )


def login_event(of: Mailbox, **fields) -> LoginEvent:
    """A login to the mailbox with its main password, just now, unless told otherwise."""
    now = timezone.now()
    defaults = {
        "at": now, "last_at": now, "tenant": of.address.tenant, "mailbox": of, "login": str(of), "ip": "192.0.2.7",
        "protocol": "submission", "outcome": "ok", "credential_text": "main password",
    }
    return LoginEvent.objects.create(**{**defaults, **fields})


def changed(name: str = "") -> DirectoryChange:
    """Tell the caches that a domain (or everything) changed."""
    return DirectoryChange.objects.create(domain=name)
