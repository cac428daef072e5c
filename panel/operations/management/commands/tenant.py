"""Tenants on the command line."""

from typing import Any

from django.db.models import Count

from panel.operations.management import base, rows, stops
from panel.operations.management.commands.plan import find_plan
from panel.tenants.models import Tenant
from panel.tenants.services import change_tenant, create_tenant


class Command(stops.Command):
    noun = "tenant"
    help = "Tenants: the companies whose mail is here. A suspended one neither logs in nor sends; its mail comes in."
    examples = """
        tenant create Acme
        tenant set Acme --plan Large
        tenant suspend Acme --reason "invoice 4711 is open"
        tenant resume Acme
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add("create", self.create, help="Make a tenant.", examples="tenant create Acme --plan Standard")
        create.add_argument("name", metavar="NAME")
        create.add_argument("--plan", metavar="PLAN", help="what it may have; Standard when left out")
        create.add_argument("--parent", metavar="TENANT", help="the reseller whose customer it is")
        acts.add_list(self.list, help="Show all tenants.", examples="tenant list --json")
        show = acts.add("show", self.show, help="Show a tenant.", examples="tenant show Acme")
        show.add_argument("name", metavar="NAME")
        change = acts.add(
            "set", self.set,
            help="Give a tenant another name, plan, parent or notes, or ask a second factor of its people.",
            examples='tenant set Acme --plan Large\n tenant set Acme --rename "Acme Ltd" --parent ""',
        )
        change.add_argument("name", metavar="NAME")
        change.add_argument("--rename", metavar="NAME", help="another name")
        change.add_argument("--plan", metavar="PLAN", help="what it may have; what it has beyond it, it keeps")
        change.add_argument("--parent", metavar="TENANT", help='the reseller whose customer it is; "" for none')
        change.add_argument("--notes", metavar="TEXT", help="for the provider only")
        change.add_argument(
            "--second-factor", choices=("required", "optional"), help="whether its members must have one in the console"
        )
        change.add_argument(
            "--people-second-factor", choices=("required", "optional"),
            help="whether people with its mailboxes must have one: then their mail programs need app passwords",
        )
        self.add_stops(acts, "Acme", "NAME")

    def find(self, name: str) -> Tenant:
        return base.find_tenant(name)

    def row_of(self, subject: Tenant) -> base.Row:
        return rows.of_tenant(subject)

    def create(self, *, name: str, plan: str | None, parent: str | None) -> None:
        chosen = find_plan(plan) if plan is not None else None
        above = base.find_tenant(parent) if parent is not None else None
        tenant = create_tenant(name=name, plan=chosen, parent=above, actor=None)
        self.done(f"The tenant {tenant} is made, on the plan {tenant.plan}.", rows.of_tenant(tenant))

    def list(self) -> None:
        tenants = Tenant.objects.select_related("plan", "parent").annotate(
            domain_count=Count("domains", distinct=True), mailbox_count=Count("addresses__mailbox", distinct=True)
        )
        self.rows(
            map(rows.of_tenant, tenants), ("name", "plan", "domains", "mailboxes", "status", "reason"),
            empty="There is no tenant: `manage.py tenant create NAME` makes the first.",
        )

    def show(self, *, name: str) -> None:
        self.show_row(rows.of_tenant(base.find_tenant(name)))

    def set(
        self, *, name: str, rename: str | None, plan: str | None, parent: str | None, notes: str | None,
        second_factor: str | None, people_second_factor: str | None,
    ) -> None:
        tenant = base.find_tenant(name)
        values: dict[str, Any] = {}
        if rename is not None:
            values["name"] = rename
        if plan is not None:
            values["plan"] = find_plan(plan)
        if parent is not None:
            values["parent"] = base.find_tenant(parent) if parent else None
        if notes is not None:
            values["notes"] = notes
        if second_factor is not None:
            values["second_factor_required"] = second_factor == "required"
        if people_second_factor is not None:
            values["people_second_factor_required"] = people_second_factor == "required"
        if not values:
            raise base.Usage(
                "Say what to change: --rename, --plan, --parent, --notes, --second-factor or --people-second-factor."
            )
        before = rows.of_tenant(tenant)
        change_tenant(tenant, actor=None, **values)
        self.unchanged(before, rows.of_tenant(tenant), f"the tenant {tenant}")
        self.done(f"The tenant {tenant} is changed.", rows.of_tenant(tenant))
