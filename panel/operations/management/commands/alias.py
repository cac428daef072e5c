"""Aliases on the command line."""

from collections.abc import Sequence
from typing import Any

from panel.mailboxes.models import BY_ADDRESS, Alias
from panel.mailboxes.services import change_alias, create_alias, delete_alias, find_alias
from panel.operations.management import base, rows


class Command(base.Command):
    help = "Aliases: addresses that lead to others, here or elsewhere."
    examples = """
        alias create info@acme.example ann@acme.example bob@elsewhere.example
        alias create @acme.example ann@acme.example
        alias set info@acme.example --target ann@acme.example
        alias set fair@acme.example --expires 90d
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
        create.add_argument(
            "--expires", metavar="WHEN",
            help="2027-12-31, 2027-12-31T18:00 (UTC) or 90d; from then on it is as if it were not there",
        )
        listing = acts.add_list(
            self.list, help="Show aliases and where they lead.", examples="alias list --tenant Acme"
        )
        listing.add_argument("--tenant", metavar="TENANT", help="only this tenant's")
        show = acts.add("show", self.show, help="Show an alias.", examples="alias show info@acme.example")
        show.add_argument("address", metavar="ADDRESS")
        change = acts.add(
            "set", self.set, help="Let an alias lead elsewhere, or describe it otherwise.",
            examples="alias set info@acme.example --target ann@acme.example --target bob@elsewhere.example",
        )
        change.add_argument("address", metavar="ADDRESS")
        change.add_argument(
            "--target", action="append", metavar="TARGET", dest="targets",
            help="where its mail goes, instead of all that were there; may be repeated",
        )
        change.add_argument("--description", help="what it is for")
        change.add_argument("--expires", metavar="WHEN", help="2027-12-31, 2027-12-31T18:00 (UTC), 90d or never")
        remove = acts.add(
            "remove", self.remove, help="Delete an alias; its address is free again.",
            examples="alias remove info@acme.example",
        )
        remove.add_argument("address", metavar="ADDRESS")

    def create(
        self, *, address: str, targets: Sequence[str], tenant: str | None, description: str, expires: str | None
    ) -> None:
        holder = base.find_tenant(tenant) if tenant is not None else None
        alias = create_alias(
            address=address, targets=targets, tenant=holder, description=description,
            expires_at=base.read_end(expires) if expires is not None else None, actor=None,
        )
        row = rows.of_alias(alias)
        self.done(f"The alias {alias} is made; it leads to {', '.join(row['targets'])}.", row)

    def list(self, *, tenant: str | None) -> None:
        aliases = Alias.objects.select_related("address__domain", "address__tenant").prefetch_related("targets")
        if tenant is not None:
            aliases = aliases.filter(tenant=base.find_tenant(tenant))
        self.rows(
            map(rows.of_alias, aliases.order_by(*BY_ADDRESS)),
            ("address", "targets", "tenant", "description", "expires"),
            empty="There is no such alias: `manage.py alias create ADDRESS TARGET` makes one.",
        )

    def show(self, *, address: str) -> None:
        self.show_row(rows.of_alias(find_alias(address)))

    def set(
        self, *, address: str, targets: Sequence[str] | None, description: str | None, expires: str | None
    ) -> None:
        given = {"targets": targets, "description": description}
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if expires is not None:
            values["expires_at"] = None if expires.strip().lower() == "never" else base.read_end(expires)
        if not values:
            raise base.Usage("Say what to change: --target, --description or --expires.")
        alias = find_alias(address)
        before = rows.of_alias(alias)
        change_alias(alias, actor=None, **values)
        row = rows.of_alias(alias)
        self.unchanged(before, row, f"the alias {alias}")
        self.done(f"The alias {alias} leads to {', '.join(row['targets'])}.", row)

    def remove(self, *, address: str) -> None:
        alias = find_alias(address)
        row = rows.of_alias(alias)
        delete_alias(alias, actor=None)
        self.done(f"The alias {row['address']} is deleted.", row)
