"""Panel accounts on the command line."""

from typing import Any

from django.db import transaction

from panel.operations.management import base, rows
from panel.operations.services import change_account, create_account
from panel.tenants.changes import NotFound, ServiceError, hash_password
from panel.tenants.models import ProviderRole, User
from panel.tenants.services import close_account, create_membership, reopen_account, set_account_password
from panel.tenants.sign_in import second_factor


class Command(base.Command):
    help = (
        "Panel accounts: who signs in to the panel by email address. The provider's have a role "
        "(support reads, operator changes, owner also manages accounts); a tenant's are its members."
    )
    examples = """
        account create ops@provider.example --provider operator
        account create ann@elsewhere.example --tenant Acme --role owner
        account password ops@provider.example
        account second-factor --reset ops@provider.example
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
        acts.add_list(self.list, help="Show all panel accounts.", examples="account list --json")
        show = acts.add("show", self.show, help="Show an account.", examples="account show ops@provider.example")
        show.add_argument("email", metavar="EMAIL")
        change = acts.add(
            "set", self.set, help="Give an account another login, name or role with the provider.",
            examples="""
                account set ops@provider.example --provider owner
                account set ops@provider.example --provider ""
            """,
        )
        change.add_argument("email", metavar="EMAIL")
        change.add_argument("--login", metavar="EMAIL", help="another address to sign in with")
        change.add_argument("--name", help="the person's name")
        change.add_argument("--provider", metavar="ROLE", help='support, operator or owner; "" for none')
        password = acts.add(
            "password", self.set_password, help="Give an account another password.",
            examples="account password ops@provider.example",
        )
        password.add_argument("email", metavar="EMAIL")
        base.add_password_stdin(password)
        factor = acts.add(
            "second-factor", self.second_factor, help="Show, require or remove an account's second factor.",
            examples="""
                account second-factor ops@provider.example
                account second-factor ops@provider.example --require
                account second-factor --reset ops@provider.example --reason "lost the phone"
            """,
        )
        factor.add_argument("email", metavar="EMAIL")
        what = factor.add_mutually_exclusive_group()
        what.add_argument("--reset", action="store_true", help="remove it: the password alone opens the account then")
        what.add_argument(
            "--require", action="store_const", const=True, dest="required", help="let the account in only with one"
        )
        what.add_argument(
            "--optional", action="store_const", const=False, dest="required", help="leave it to the account"
        )
        base.add_reason(factor, required=False)
        for name, do, text in (
            ("close", self.close, "Let an account no longer sign in."),
            ("restore", self.restore, "Let a closed account sign in again."),
            ("reopen", self.restore, "The same as restore."),
        ):
            act = acts.add(name, do, help=text, examples=f'account {name} ops@provider.example --reason "on leave"')
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
        self.done(f"The account {account} is made.", rows.of_account(account))
        self.show_password(str(account), password, made)

    def list(self) -> None:
        accounts = User.objects.filter(kind=User.Kind.PANEL).select_related("second_factor")
        accounts = accounts.prefetch_related("memberships__tenant")
        self.rows(
            map(rows.of_account, accounts), ("email", "name", "provider", "member_of", "state"),
            empty="There is no account: `manage.py account create EMAIL --provider owner` makes the first.",
        )

    def show(self, *, email: str) -> None:
        self.show_row(rows.of_account(find_account(email)))

    def set(self, *, email: str, login: str | None, name: str | None, provider: str | None) -> None:
        given = {"email": login, "name": name, "provider_role": provider}
        values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if not values:
            raise base.Usage("Say what to change: --login, --name or --provider.")
        account = find_account(email)
        before = rows.of_account(account)
        change_account(account, actor=None, **values)
        self.unchanged(before, rows.of_account(account), f"the account {account}")
        self.done(f"The account {account} is changed.", rows.of_account(account))

    def set_password(self, *, email: str, from_stdin: bool) -> None:
        account = find_account(email)
        password, made = self.password(email, from_stdin=from_stdin)
        set_account_password(account, password, actor=None)
        self.done(f"The password of {account} is set.", rows.of_account(account))
        self.show_password(str(account), password, made)

    def second_factor(self, *, email: str, reset: bool, required: bool | None, reason: str) -> None:
        account = find_account(email)
        if reset:
            second_factor.remove(account, actor=None, reason=reason)
        if required is not None:
            change_account(account, second_factor_required=required, actor=None)
        factor = second_factor.of(account)
        said = f"has a second factor since {factor.created_at:%Y-%m-%d %H:%M} UTC" if factor else "has no second factor"
        must = second_factor.is_required(account)
        self.done(f"The account {account} {said}{' and must have one' if must else ''}.", rows.of_account(account))

    def close(self, *, email: str, reason: str) -> None:
        account = find_account(email)
        close_account(account, reason=reason, actor=None)
        self.done(f"The account {account} is closed.", rows.of_account(account))

    def restore(self, *, email: str, reason: str) -> None:
        account = find_account(email)
        reopen_account(account, reason=reason, actor=None)
        self.done(f"The account {account} is open.", rows.of_account(account))


def find_account(email: str) -> User:
    """The panel account that signs in with this address. Raises NotFound."""
    account = User.objects.filter(kind=User.Kind.PANEL, email=email.strip().lower()).first()
    if account is None:
        raise NotFound(f"There is no account {email}: `manage.py account list` shows all.", "email")
    return account
