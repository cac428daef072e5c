"""The audit log on the command line."""

from datetime import datetime

from panel.operations.management import base, rows
from panel.tenants.changes import NotFound, ServiceError
from panel.tenants.models import AuditEntry

MOST_SHOWN = 10_000


class Command(base.Command):
    help = "The audit log: who did what to whose data, when, from where and why."
    examples = """
        audit list --tenant Acme
        audit list --of shop@acme.example --since 7d
        audit show 4711
    """

    def add_acts(self, acts: base.Acts) -> None:
        listing = acts.add_list(
            self.list, help="Show entries, the newest first.", examples="audit list --action mailbox.suspended --json"
        )
        listing.add_argument("--tenant", metavar="TENANT", help="only what this tenant may read")
        listing.add_argument("--of", metavar="NAME", dest="subject", help="only what was done to this address or name")
        listing.add_argument("--action", metavar="ACTION", help="only this: mailbox.suspended, or mailbox for all")
        listing.add_argument("--by", metavar="WHO", dest="actor", help='only by this account, or "command line"')
        listing.add_argument("--since", metavar="WHEN", help="2027-12-31 or 7d (days ago)")
        listing.add_argument("--most", metavar="NUMBER", type=int, default=100, help="how many; 100 when left out")
        show = acts.add(
            "show", self.show, help="Show an entry, with what was before and after.", examples="audit show 4711"
        )
        show.add_argument("number", metavar="ID", type=int)

    def list(
        self, *, tenant: str | None, subject: str | None, action: str | None, actor: str | None, since: str | None,
        most: int,
    ) -> None:
        entries = AuditEntry.objects.select_related("tenant")
        if tenant is not None:
            entries = entries.filter(tenant=base.find_tenant(tenant))
        if subject is not None:
            entries = entries.filter(subject_name=subject)
        if action is not None:
            wanted = {"action": action} if "." in action else {"action__startswith": f"{action}."}
            entries = entries.filter(**wanted)
        if actor is not None:
            entries = entries.filter(actor_name=actor)
        if since is not None:
            entries = entries.filter(at__gte=_since(since))
        self.rows(
            map(rows.of_entry, entries[: min(max(most, 1), MOST_SHOWN)]),
            ("id", "at", "who", "what", "to", "tenant", "reason"), empty="There is no such entry.",
        )

    def show(self, *, number: int) -> None:
        found = AuditEntry.objects.select_related("tenant").filter(pk=number) if 0 < number < 2**63 else None
        entry = found.first() if found is not None else None
        if entry is None:
            raise NotFound(f"There is no entry {number}: `manage.py audit list` shows the numbers.")
        self.show_row(rows.of_entry(entry))


def _since(text: str) -> datetime:
    try:
        return base.read_moment(text, ago=True)
    except ValueError:
        raise ServiceError(f"{text[:40]!r} is no date: write 2027-12-31, 2027-12-31T18:00 or 7d.", "since") from None
