"""Memberships on the command line."""

from panel.operations.management import base, rows
from panel.operations.management.commands.account import find_account
from panel.tenants.changes import NotFound
from panel.tenants.models import Membership
from panel.tenants.services import change_membership, create_membership, delete_membership


class Command(base.Command):
    help = "Memberships: which panel accounts look after a tenant (and the tenants below it), and as what."
    examples = """
        membership create ann@elsewhere.example Acme --role admin
        membership set ann@elsewhere.example Acme --role viewer
        membership list --tenant Acme
    """

    def add_acts(self, acts: base.Acts) -> None:
        for name, do, text in (
            ("create", self.create, "Make a panel account a member of a tenant."),
            ("set", self.set, "Give a member another role."),
            ("delete", self.delete, "Take an account out of a tenant."),
        ):
            role = "" if name == "delete" else " --role admin"
            act = acts.add(name, do, help=text, examples=f"membership {name} ann@elsewhere.example Acme{role}")
            act.add_argument("email", metavar="EMAIL")
            act.add_argument("tenant", metavar="TENANT")
            if role:
                act.add_argument("--role", metavar="ROLE", required=True, help="owner, admin or viewer")
        listing = acts.add_list(self.list, help="Show memberships.", examples="membership list --tenant Acme")
        listing.add_argument("--tenant", metavar="TENANT", help="only this tenant's")

    def create(self, *, email: str, tenant: str, role: str) -> None:
        made = create_membership(user=find_account(email), tenant=base.find_tenant(tenant), role=role, actor=None)
        self.done(f"{made.user} is {made.role} of {made.tenant}.", rows.of_membership(made))

    def list(self, *, tenant: str | None) -> None:
        memberships = Membership.objects.select_related("user", "tenant").order_by("tenant__name", "user__email")
        if tenant is not None:
            memberships = memberships.filter(tenant=base.find_tenant(tenant))
        self.rows(map(rows.of_membership, memberships), ("email", "tenant", "role"), empty="Nobody is a member.")

    def set(self, *, email: str, tenant: str, role: str) -> None:
        membership = _find(email, tenant)
        before = rows.of_membership(membership)
        change_membership(membership, role=role, actor=None)
        self.unchanged(before, rows.of_membership(membership), "the membership")
        self.done(f"{membership.user} is {role} of {membership.tenant}.", rows.of_membership(membership))

    def delete(self, *, email: str, tenant: str) -> None:
        membership = _find(email, tenant)
        row = rows.of_membership(membership)
        delete_membership(membership, actor=None)
        self.done(f"{row['email']} is no longer a member of {row['tenant']}.", row)


def _find(email: str, tenant: str) -> Membership:
    account, of = find_account(email), base.find_tenant(tenant)
    membership = Membership.objects.filter(user=account, tenant=of).select_related("user", "tenant").first()
    if membership is None:
        raise NotFound(f"{account} is no member of {of}: `manage.py membership list` shows all.", "email")
    return membership
