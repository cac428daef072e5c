"""Each letter that there is, with one and the same name wherever somebody else's words stand."""

from collections.abc import Callable
from datetime import UTC, datetime

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import Address, Credential, LoginEvent, Mailbox
from panel.operations import invitations, password_reset, recovery
from panel.operations.notices import domains, limits, room, security, sign_ins
from panel.rules.limits import Window
from panel.sending.letters import Letter
from panel.tenants.decided import Freezer
from panel.tenants.models import AuditEntry, Invitation, Tenant, User

AT = datetime(2026, 11, 30, 2, 30, tzinfo=UTC)


def composers(name: str) -> dict[str, Callable[[], Letter]]:
    """By what each is called here."""
    tenant, domain = Tenant(pk=1, name=name), Domain(pk=1, name=name, tenant_id=1)
    named = {"domain": domain, "domainalias": DomainAlias(pk=1, name=name, domain=domain)}
    account = User(pk=1, email=name)
    mailbox = Mailbox(pk=1, address=Address(local_part=name, domain=domain))
    entry = AuditEntry(at=AT, before={"mx": "same", "spf": "nothing", name: name}, after={
        "mx": "different", "spf": "same", name: name,
    })
    invitation = Invitation(tenant=tenant, email=name, role="admin", invited_by=account, sent_at=AT)
    phone = Credential(pk=1, kind="app", label=name)
    sign_in = LoginEvent(at=AT, protocol="imap", credential=phone, credential_text=name)
    return {
        "reset": lambda: password_reset._letter(account, "192.0.2.1", "/admin/login/reset/x/"),
        "reset of a mailbox": lambda: password_reset._letter_of_mailbox(mailbox, "192.0.2.1", "/admin/login/reset/x/"),
        "recovery address": lambda: recovery._confirm(mailbox, "/me/sign-ins/recovery/confirm/x/"),
        "recovery address changed": lambda: recovery._notice(mailbox, Freezer.PERSON, "192.0.2.1"),
        "invitation": lambda: invitations._letter(invitation, account, "/invitation/x/"),
        **{
            f"{model} {act}": lambda compose=compose, row=row: compose(row, entry)  # type: ignore[misc]
            for act, compose in domains._COMPOSED.items() for model, row in named.items()
        },
        **{
            f"domains {act}": lambda act=act: domains._composed(act, [(domain, entry)] * 2, tenant)  # type: ignore[misc]
            for act in domains._OF_SEVERAL
        },
        **{
            act: lambda act=act: security._letter(account if act.startswith("account") else mailbox, AuditEntry(  # type: ignore[misc]
                action=act, at=AT, ip="192.0.2.1", before={"passkey": name}, after={"passkey": name},
            ))
            for act in security._SAID
        },
        "mailbox fills up": lambda: room._letter(mailbox, 900, 1000),
        "mailbox limit": lambda: limits._letter(limits.Reached("mailbox", 1, Window.HOUR, 200, 200), mailbox),
        "tenant limit": lambda: limits._letter(limits.Reached("tenant", 1, Window.DAY, 999, 1000), tenant),
        "sign-in": lambda: sign_ins._letter(name, "192.0.2.1", sign_in, "/me/sign-ins/"),
    }
