"""Tenants on the command line."""

from django.db.models import Count

from panel.operations.management import base
from panel.operations.services import resume, suspend
from panel.rules.status import Status
from panel.tenants.changes import ServiceError
from panel.tenants.models import Plan, Tenant
from panel.tenants.services import create_tenant


class Command(base.Command):
    help = "Tenants: the companies whose mail is here. A suspended one neither logs in nor sends; its mail comes in."
    examples = """
        tenant create Acme
        tenant suspend Acme --reason "invoice 4711 is open"
        tenant resume Acme
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add("create", self.create, help="Make a tenant.", examples="tenant create Acme --plan Standard")
        create.add_argument("name", metavar="NAME")
        create.add_argument("--plan", metavar="PLAN", help="what it may have; Standard when left out")
        create.add_argument("--parent", metavar="TENANT", help="the reseller whose customer it is")
        acts.add_list(self.list, help="Show all tenants.")
        for name, do, text, required in (
            ("suspend", self.suspend, "Stop all logins and all sending of a tenant; its mail still comes in.", True),
            ("resume", self.resume, "Make a suspended tenant active again, and what waits of it due.", False),
        ):
            act = acts.add(name, do, help=text, examples=f'tenant {name} Acme --reason "as agreed by phone"')
            act.add_argument("name", metavar="NAME")
            base.add_reason(act, required=required)
            if name == "suspend":
                act.add_argument("--sending-only", action="store_true", help="stop only the sending, not the logins")

    def create(self, *, name: str, plan: str | None, parent: str | None) -> None:
        chosen = Plan.objects.filter(name=plan).first() if plan is not None else None
        if plan is not None and chosen is None:
            names = ", ".join(Plan.objects.values_list("name", flat=True))
            raise ServiceError(f"There is no plan {plan}: there are {names}.", "plan")
        above = base.find_tenant(parent) if parent is not None else None
        tenant = create_tenant(name=name, plan=chosen, parent=above, actor=None)
        self.say(f"The tenant {tenant} is made, on the plan {tenant.plan}.")

    def list(self, *, as_json: bool) -> None:
        tenants = Tenant.objects.select_related("plan").annotate(
            domain_count=Count("domains", distinct=True), mailbox_count=Count("addresses__mailbox", distinct=True)
        )
        rows = [
            (one.name, one.plan, one.domain_count, one.mailbox_count, Status(one.status).words, one.status_reason)
            for one in tenants
        ]
        self.table(
            ("NAME", "PLAN", "DOMAINS", "MAILBOXES", "STATUS", "REASON"), rows, as_json=as_json,
            empty="There is no tenant: `manage.py tenant create NAME` makes the first.",
        )

    def suspend(self, *, name: str, reason: str, sending_only: bool) -> None:
        tenant = base.find_tenant(name)
        suspend(tenant, reason=reason, sending_only=sending_only, actor=None)
        self.say(f"The tenant {tenant} is {Status(tenant.status).words}.")

    def resume(self, *, name: str, reason: str) -> None:
        tenant = base.find_tenant(name)
        resume(tenant, reason=reason, actor=None)
        self.say(f"The tenant {tenant} is active.")
