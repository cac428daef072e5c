"""Panel accounts on the command line."""

from django.db import transaction

from panel.operations.management import base
from panel.operations.services import create_account
from panel.tenants.changes import ServiceError, hash_password
from panel.tenants.models import Membership, ProviderRole, User
from panel.tenants.services import close_account, create_membership, reopen_account, set_account_password


class Command(base.Command):
    help = (
        "Panel accounts: who signs in to the panel by email address. The provider's have a role "
        "(support reads, operator changes, owner also manages accounts); a tenant's are its members."
    )
    examples = """
        account create ops@provider.example --provider operator
        account create ann@elsewhere.example --tenant Acme --role owner
        account password ops@provider.example
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add(
            "create", self.create, help="Make an account.",
            examples="""
                account create ops@provider.example --provider owner
                account create ann@elsewhere.example --tenant Acme --role admin --password-stdin < file
            """,
        )
        create.add_argument("email", metavar="EMAIL", help="the login: an address that is not hosted here")
        where = create.add_mutually_exclusive_group(required=True)
        where.add_argument("--provider", metavar="ROLE", help="support, operator or owner")
        where.add_argument("--tenant", metavar="TENANT", help="make it a member of this tenant")
        create.add_argument("--role", metavar="ROLE", help="in the tenant: owner, admin or viewer")
        create.add_argument("--name", default="", help="the person's name")
        base.add_password_stdin(create)
        acts.add_list(self.list, help="Show all panel accounts.")
        password = acts.add("password", self.set_password, help="Give an account another password.")
        password.add_argument("email", metavar="EMAIL")
        base.add_password_stdin(password)
        for name, do, text in (
            ("close", self.close, "Let an account no longer sign in."),
            ("reopen", self.reopen, "Let a closed account sign in again."),
        ):
            act = acts.add(name, do, help=text)
            act.add_argument("email", metavar="EMAIL")
            base.add_reason(act, required=False)

    def create(
        self, *, email: str, provider: str | None, tenant: str | None, role: str | None, name: str, from_stdin: bool
    ) -> None:
        if provider == "":
            raise ServiceError("The provider's role is empty: write support, operator or owner.", "provider_role")
        if bool(tenant) != bool(role):
            raise ServiceError("--tenant and --role belong together: owner, admin or viewer.", "role")
        member_of = base.find_tenant(tenant) if tenant else None
        password, made = self.password(email, from_stdin=from_stdin)
        hashed = hash_password(password, User(email=email, name=name))
        with transaction.atomic():
            account = create_account(
                email=email, password=hashed, name=name, provider_role=provider or ProviderRole.NONE, actor=None
            )
            if member_of:
                create_membership(user=account, tenant=member_of, role=role or "", actor=None)
        self.say(f"The account {account} is made.")
        self.show_password(str(account), password, made)

    def list(self, *, as_json: bool) -> None:
        members: dict[int, list[str]] = {}
        for one in Membership.objects.select_related("tenant"):
            members.setdefault(one.user_id, []).append(f"{one.tenant}: {one.role}")
        rows = [
            (
                user.email, user.name, user.provider_role, members.get(user.pk, []),
                "open" if user.is_active else "closed",
            )
            for user in User.objects.filter(kind=User.Kind.PANEL)
        ]
        self.table(
            ("EMAIL", "NAME", "PROVIDER", "MEMBER OF", "STATE"), rows, as_json=as_json,
            empty="There is no account: `manage.py account create EMAIL --provider owner` makes the first.",
        )

    def set_password(self, *, email: str, from_stdin: bool) -> None:
        account = _find(email)
        password, made = self.password(email, from_stdin=from_stdin)
        set_account_password(account, password, actor=None)
        self.say(f"The password of {account} is set.")
        self.show_password(str(account), password, made)

    def close(self, *, email: str, reason: str) -> None:
        account = _find(email)
        close_account(account, reason=reason, actor=None)
        self.say(f"The account {account} is closed.")

    def reopen(self, *, email: str, reason: str) -> None:
        account = _find(email)
        reopen_account(account, reason=reason, actor=None)
        self.say(f"The account {account} is open.")


def _find(email: str) -> User:
    account = User.objects.filter(kind=User.Kind.PANEL, email=email.strip().lower()).first()
    if account is None:
        raise ServiceError(f"There is no account {email}: `manage.py account list` shows all.", "email")
    return account
