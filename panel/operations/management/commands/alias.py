"""Aliases on the command line."""

from panel.mailboxes.models import Alias
from panel.mailboxes.services import create_alias, delete_alias, find_alias
from panel.operations.management import base


class Command(base.Command):
    help = "Aliases: addresses that lead to others, here or elsewhere."
    examples = """
        alias create info@acme.example ann@acme.example bob@elsewhere.example
        alias create @acme.example ann@acme.example
        alias remove info@acme.example
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add(
            "create", self.create, help='Make an alias; "@acme.example" takes whatever has no address there.',
            examples="alias create info@acme.example ann@acme.example bob@elsewhere.example",
        )
        create.add_argument("address", metavar="ADDRESS")
        create.add_argument("targets", metavar="TARGET", nargs="+", help="where its mail goes")
        create.add_argument("--tenant", metavar="TENANT", help="whose it is; needed in a shared domain, and only there")
        create.add_argument("--description", default="", help="what it is for")
        listing = acts.add_list(self.list, help="Show aliases and where they lead.")
        listing.add_argument("--tenant", metavar="TENANT", help="only this tenant's")
        remove = acts.add("remove", self.remove, help="Delete an alias; its address is free again.")
        remove.add_argument("address", metavar="ADDRESS")

    def create(self, *, address: str, targets: list[str], tenant: str | None, description: str) -> None:
        holder = base.find_tenant(tenant) if tenant is not None else None
        alias = create_alias(address=address, targets=targets, tenant=holder, description=description, actor=None)
        leads = ", ".join(alias.targets.values_list("target", flat=True))
        self.say(f"The alias {alias} is made; it leads to {leads}.")

    def list(self, *, tenant: str | None, as_json: bool) -> None:
        aliases = Alias.objects.select_related("address__domain", "address__tenant").prefetch_related("targets")
        if tenant is not None:
            aliases = aliases.filter(address__tenant=base.find_tenant(tenant))
        rows = [
            (one, [target.target for target in one.targets.all()], one.address.tenant, one.description)
            for one in aliases.order_by("address__domain__name", "address__local_part")
        ]
        self.table(
            ("ADDRESS", "TARGETS", "TENANT", "DESCRIPTION"), rows, as_json=as_json,
            empty="There is no such alias: `manage.py alias create ADDRESS TARGET` makes one.",
        )

    def remove(self, *, address: str) -> None:
        alias = find_alias(address)
        name = str(alias)
        delete_alias(alias, actor=None)
        self.say(f"The alias {name} is deleted.")
