"""Each letter that there is, with one and the same name wherever somebody else's words stand."""

from collections.abc import Callable
from datetime import UTC, datetime

from panel.domains.models import Domain, DomainAlias
from panel.mailboxes.models import Address, Credential, LoginEvent, Mailbox
from panel.operations import invitations, password_reset, recovery
from panel.operations.notices import domains, limits, second_factors, sign_ins
from panel.rules.limits import Window
from panel.sending.letters import Letter
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
        "recovery address": lambda: recovery._welcome(mailbox),
        "recovery address changed": lambda: recovery._notice(mailbox, account, "192.0.2.1"),
        "invitation": lambda: invitations._letter(invitation, account, "/invitation/x/"),
        **{
            action: lambda compose=compose, action=action: compose(named[action.partition(".")[0]], entry)  # type: ignore[misc]
            for action, compose in domains._COMPOSED.items()
        },
        "mailbox limit": lambda: limits._letter(limits.Reached("mailbox", 1, Window.HOUR, 200, 200), mailbox),
        "tenant limit": lambda: limits._letter(limits.Reached("tenant", 1, Window.DAY, 999, 1000), tenant),
        "second factor of an account": lambda: second_factors._letter(
            account, AuditEntry(at=AT, action="account.passkey_removed", before={"passkey": name}, actor=account)
        ),
        "second factor of a mailbox": lambda: second_factors._letter(
            mailbox, AuditEntry(at=AT, action="mailbox.second_factor_added", ip="192.0.2.1")
        ),
        "second factor of a mailbox removed": lambda: second_factors._letter(
            mailbox, AuditEntry(at=AT, action="mailbox.second_factor_removed")
        ),
        "sign-in": lambda: sign_ins._letter(name, "192.0.2.1", sign_in, "/me/sign-ins/"),
    }
