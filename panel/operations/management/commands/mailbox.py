"""Mailboxes on the command line."""

from panel.mailboxes.models import Mailbox
from panel.mailboxes.services import create_mailbox, find_mailbox, set_password
from panel.operations.management import base
from panel.operations.services import resume, suspend
from panel.rules.status import Status


class Command(base.Command):
    help = "Mailboxes: each has an address, a person and a main password. Suspending takes hold within a second."
    examples = """
        mailbox create ann@acme.example
        mailbox create bob@isp.example --tenant Acme
        mailbox suspend ann@acme.example --reason "password found in a leak"
        mailbox suspend ann@acme.example --sending-only --reason "writes to a bought list"
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add(
            "create", self.create, help="Make a mailbox.",
            examples="""
                mailbox create ann@acme.example --name "Ann Archer"
                mailbox create bob@isp.example --tenant Acme
            """,
        )
        create.add_argument("address", metavar="ADDRESS")
        create.add_argument("--tenant", metavar="TENANT", help="whose it is; needed in a shared domain, and only there")
        create.add_argument("--name", default="", help="the person's name")
        base.add_password_stdin(create)
        listing = acts.add_list(self.list, help="Show mailboxes.")
        listing.add_argument("--tenant", metavar="TENANT", help="only this tenant's")
        listing.add_argument("--domain", metavar="DOMAIN", help="only in this domain")
        password = acts.add("password", self.set_password, help="Give a mailbox another main password.")
        password.add_argument("address", metavar="ADDRESS")
        base.add_password_stdin(password)
        stop = acts.add(
            "suspend", self.suspend, help="Stop a mailbox's logins and sending; its mail still comes in.",
            examples='mailbox suspend ann@acme.example --reason "password found in a leak"',
        )
        stop.add_argument("address", metavar="ADDRESS")
        base.add_reason(stop, required=True)
        stop.add_argument("--sending-only", action="store_true", help="stop only the sending, not the logins")
        start = acts.add("resume", self.resume, help="Make a suspended mailbox active again, and what waits of it due.")
        start.add_argument("address", metavar="ADDRESS")
        base.add_reason(start, required=False)

    def create(self, *, address: str, tenant: str | None, name: str, from_stdin: bool) -> None:
        holder = base.find_tenant(tenant) if tenant is not None else None
        password, made = self.password(address, from_stdin=from_stdin)
        mailbox = create_mailbox(address=address, password=password, tenant=holder, name=name, actor=None)
        self.say(f"The mailbox {mailbox} is made.")
        self.show_password(str(mailbox), password, made)

    def list(self, *, tenant: str | None, domain: str | None, as_json: bool) -> None:
        mailboxes = Mailbox.objects.select_related("address__domain", "address__tenant").order_by(
            "address__domain__name", "address__local_part"
        )
        if tenant is not None:
            mailboxes = mailboxes.filter(address__tenant=base.find_tenant(tenant))
        if domain is not None:
            mailboxes = mailboxes.filter(address__domain=base.find_domain(domain))
        rows = [
            (one, one.name, one.address.tenant, Status(one.status).words, one.opaque_id, one.status_reason)
            for one in mailboxes
        ]
        self.table(
            ("ADDRESS", "NAME", "TENANT", "STATUS", "FOLDER", "REASON"), rows, as_json=as_json,
            empty="There is no such mailbox: `manage.py mailbox create ADDRESS` makes one.",
        )

    def set_password(self, *, address: str, from_stdin: bool) -> None:
        mailbox = find_mailbox(address)
        password, made = self.password(address, from_stdin=from_stdin)
        set_password(mailbox, password, actor=None)
        self.say(f"The password of {mailbox} is set.")
        self.show_password(str(mailbox), password, made)

    def suspend(self, *, address: str, reason: str, sending_only: bool) -> None:
        mailbox = find_mailbox(address)
        suspend(mailbox, reason=reason, sending_only=sending_only, actor=None)
        self.say(f"The mailbox {mailbox} is {Status(mailbox.status).words}.")

    def resume(self, *, address: str, reason: str) -> None:
        mailbox = find_mailbox(address)
        resume(mailbox, reason=reason, actor=None)
        self.say(f"The mailbox {mailbox} is active.")
