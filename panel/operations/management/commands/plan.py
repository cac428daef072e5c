"""Plans on the command line."""

import argparse
from typing import Any

from django.db.models import Count

from panel.operations.management import base, rows
from panel.tenants.changes import NotFound, ServiceError
from panel.tenants.models import Plan
from panel.tenants.services import PLAN_NUMBERS, change_plan, create_plan, delete_plan

MEANING = {
    "domains": "domains of a tenant", "mailboxes": "mailboxes of a tenant", "aliases": "aliases of a tenant",
    "credentials": "app passwords of a tenant",
    "storage_bytes": "the quotas of a tenant's mailboxes together: 50GB",
    "mailbox_hour": "recipients a mailbox, 1 hour", "mailbox_day": "recipients a mailbox, 24 hours",
    "tenant_hour": "recipients a tenant, 1 hour", "tenant_day": "recipients a tenant, 24 hours",
    "customers": "tenants that a tenant makes below itself, as a reseller (0 unless given)",
}


class Command(base.Command):
    help = "Plans: what a tenant may have and send. A number that is not given is unlimited."
    examples = """
        plan create Small --domains 1 --mailboxes 10 --storage 50GB --tenant-day 500
        plan set Small --mailboxes 20 --aliases unlimited
        plan list
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add(
            "create", self.create, help="Make a plan.", examples="plan create Small --domains 1 --mailboxes 10"
        )
        create.add_argument("name", metavar="NAME")
        self._add_numbers(create)
        acts.add_list(self.list, help="Show all plans.", examples="plan list --json")
        show = acts.add("show", self.show, help="Show a plan.", examples="plan show Standard")
        show.add_argument("name", metavar="NAME")
        change = acts.add(
            "set", self.set,
            help="Give a plan other numbers; they hold for its tenants at once. What is beyond them stays.",
            examples='plan set Standard --mailboxes 500\n plan set Standard --rename "Standard 2027"',
        )
        change.add_argument("name", metavar="NAME")
        change.add_argument("--rename", metavar="NAME", help="another name")
        self._add_numbers(change)
        delete = acts.add("delete", self.delete, help="Delete a plan that no tenant is on.", examples="plan delete Old")
        delete.add_argument("name", metavar="NAME")

    def _add_numbers(self, parser: argparse.ArgumentParser) -> None:
        for name in PLAN_NUMBERS:
            option = f"--{name.removesuffix('_bytes').replace('_', '-')}"
            meaning = MEANING.get(name, name.replace("_", " "))
            parser.add_argument(option, metavar="NUMBER", dest=name, help=f"{meaning}; or unlimited")
        parser.add_argument(
            "--for-customers", choices=["yes", "no"], help="whether resellers may give it to their customers"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        given = {name: options[name] for name in PLAN_NUMBERS if options.get(name) is not None}
        super().handle(*args, **{**options, "numbers": given})

    def create(self, *, name: str, numbers: dict[str, str], for_customers: str | None) -> None:
        values: dict[str, Any] = _read(numbers)
        if for_customers is not None:
            values["for_customers"] = for_customers == "yes"
        plan = create_plan(name=name, actor=None, **values)
        self.done(f"The plan {plan} is made.", rows.of_plan(plan))

    def list(self) -> None:
        plans = [{**rows.of_plan(one), "tenants": one.count} for one in Plan.objects.annotate(count=Count("tenants"))]
        self.rows(plans, ("name", *PLAN_NUMBERS, "tenants"), empty="There is no plan.")

    def show(self, *, name: str) -> None:
        self.show_row(rows.of_plan(find_plan(name)))

    def set(self, *, name: str, rename: str | None, numbers: dict[str, str], for_customers: str | None) -> None:
        values: dict[str, Any] = _read(numbers)
        if for_customers is not None:
            values["for_customers"] = for_customers == "yes"
        if rename is not None:
            values["name"] = rename
        if not values:
            raise base.Usage("Say what to change, for example --mailboxes 20 or --rename NAME.")
        plan = find_plan(name)
        before = rows.of_plan(plan)
        change_plan(plan, actor=None, **values)
        self.unchanged(before, rows.of_plan(plan), f"the plan {plan}")
        self.done(f"The plan {plan} is changed.", rows.of_plan(plan))

    def delete(self, *, name: str) -> None:
        plan = find_plan(name)
        row = rows.of_plan(plan)
        delete_plan(plan, actor=None)
        self.done(f"The plan {name} is deleted.", row)


def find_plan(name: str) -> Plan:
    """The plan of this name. Raises NotFound."""
    plan = Plan.objects.filter(name=name.strip()).first()
    if plan is None:
        names = ", ".join(Plan.objects.values_list("name", flat=True))
        raise NotFound(f"There is no plan {name}: there are {names}.", "plan")
    return plan


def _read(numbers: dict[str, str]) -> dict[str, int | None]:
    return {name: _number(name, text.strip()) for name, text in numbers.items()}


def _number(name: str, text: str) -> int | None:
    if name.endswith("_bytes"):
        return base.read_bound(text, name)
    if text.lower() == "unlimited":
        return None
    if not text.isascii() or not text.isdigit():
        raise ServiceError(f"{text[:40]!r} is no number: write a whole number, or unlimited.", name)
    return int(text)
