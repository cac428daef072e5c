"""Mailboxes on the command line."""

from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.core.management.base import CommandError

from panel.mailboxes.models import Mailbox
from panel.mailboxes.services import create_mailbox, find_mailbox, set_password
from panel.mailboxes.storage import Storage
from panel.operations.management import base
from panel.operations.moving import mbsync
from panel.operations.moving.accounts import hosts_beyond_loopback, parse_host, read_accounts
from panel.operations.moving.services import Options, Result, migrate, rehearse
from panel.operations.services import resume, suspend
from panel.rules.status import Status
from panel.tenants.changes import ServiceError
from panel.tenants.shown import about, moment, size

MOST_FOLDER = 200  # characters of a folder's name


class Command(base.Command):
    help = "Mailboxes: each has an address, a person and a main password. Suspending takes hold within a second."
    examples = """
        mailbox create ann@acme.example
        mailbox create bob@isp.example --tenant Acme
        mailbox suspend ann@acme.example --reason "password found in a leak"
        mailbox suspend ann@acme.example --sending-only --reason "writes to a bought list"
        mailbox migrate accounts.csv --from imap.old.example
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
        showing = acts.add(
            "show", self.show, help="Show a mailbox, with what it holds and may hold.",
            examples="""
                mailbox show ann@acme.example
                mailbox show ann@acme.example --json
            """,
        )
        showing.add_argument("address", metavar="ADDRESS")
        showing.add_argument("--json", action="store_true", dest="as_json", help="as JSON; sizes in bytes")
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

        move = acts.add(
            "migrate", self.migrate,
            help="Pull mailboxes in from another mail host by IMAP. Nothing changes over there. Run it again as often "
            "as you like: what has come once is never pulled again, and an interrupted run is resumed.",
            examples="""
                mailbox migrate accounts.csv --from imap.old.example --dry-run
                mailbox migrate accounts.csv --from imap.old.example
                mailbox migrate accounts.csv --from imap.old.example --last
            """,
        )
        move.add_argument(
            "accounts", metavar="ACCOUNTS.csv",
            help="a line each: address here, user there (empty: the same), password there, and perhaps host:port",
        )
        move.add_argument(
            "--from", metavar="HOST[:PORT]", dest="host",
            help="where they are now; 993 (TLS) when left out, 143 is asked for STARTTLS",
        )
        move.add_argument("--dry-run", action="store_true", help="check the list and each log-in, pull nothing")
        move.add_argument(
            "--without", metavar="FOLDER", action="append", default=[],
            help='leave this folder out, may be repeated: "[Gmail]/All Mail", "Trash*"',
        )
        move.add_argument(
            "--last", action="store_true",
            help="this is the last run: forget what was pulled of each account that is here whole",
        )
        move.add_argument("--ca", metavar="FILE", help="trust the certificates in this file as well (PEM)")
        move.add_argument("--plain", action="store_true", help="without TLS; only from a host on loopback")

    def create(self, *, address: str, tenant: str | None, name: str, from_stdin: bool) -> None:
        holder = base.find_tenant(tenant) if tenant is not None else None
        password, made = self.password(address, from_stdin=from_stdin)
        mailbox = create_mailbox(address=address, password=password, tenant=holder, name=name, actor=None)
        self.say(f"The mailbox {mailbox} is made.")
        self.show_password(str(mailbox), password, made)

    def list(self, *, tenant: str | None, domain: str | None, as_json: bool) -> None:
        mailboxes = Mailbox.objects.select_related("address__domain", "address__tenant", "usage").order_by(
            "address__domain__name", "address__local_part"
        )
        if tenant is not None:
            mailboxes = mailboxes.filter(address__tenant=base.find_tenant(tenant))
        if domain is not None:
            mailboxes = mailboxes.filter(address__domain=base.find_domain(domain))
        rows = [
            (one, one.name, one.address.tenant, Status(one.status).words, *_storage(one, as_json), one.opaque_id,
             one.status_reason)
            for one in mailboxes
        ]
        self.table(
            ("ADDRESS", "NAME", "TENANT", "STATUS", "USED", "ALLOWED", "FOLDER", "REASON"), rows, as_json=as_json,
            empty="There is no such mailbox: `manage.py mailbox create ADDRESS` makes one.",
        )

    def show(self, *, address: str, as_json: bool) -> None:
        mailbox = find_mailbox(address)
        storage = Storage.of(mailbox)
        facts: dict[str, object] = {
            "address": str(mailbox),
            "name": mailbox.name,
            "tenant": str(mailbox.address.tenant),
            "status": Status(mailbox.status).words,
            "reason": mailbox.status_reason,
            "folder": mailbox.opaque_id,
        }
        if as_json:
            usage = storage.usage
            self.json({
                **facts, "used": storage.used_bytes, "allowed": storage.quota_bytes, "percent": storage.percent,
                "messages": storage.messages, "known_at": storage.known_at.isoformat() if storage.known_at else None,
                "counted_at": usage.counted_at.isoformat() if usage and usage.counted_at else None,
            })
            return
        facts["storage"] = storage.words
        if storage.usage and storage.known_at:
            known = moment(storage.known_at, plain=True)
            counted = storage.usage.counted_at
            facts["messages"] = f"{storage.messages:,}"
            facts["known"] = known if counted is None else f"{known}, counted {moment(counted, plain=True)}"
        for name, value in facts.items():
            if value:
                self.say(f"{name + ':':10} {value}")

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

    def migrate(
        self, *, accounts: str, host: str | None, dry_run: bool, without: Sequence[str], last: bool, ca: str | None,
        plain: bool,
    ) -> None:
        if mbsync.program() is None:
            raise ServiceError("mbsync isn't installed: apt-get install isync.")
        authority = Path(ca).absolute() if ca else None
        if authority and not authority.is_file():
            raise ServiceError(f"There is no file {authority}.")
        if any(not name or not name.isprintable() or len(name) > MOST_FOLDER for name in without):
            raise ServiceError("A folder to leave out is empty, too long, or holds a control character.")
        path = Path(accounts)
        found = read_accounts(path, parse_host(host) if host is not None else None)
        outside = hosts_beyond_loopback(found)
        if plain and outside:
            raise ServiceError(f"Passwords don't go to {outside[0]} without TLS: --plain is for loopback.")
        if path.stat().st_mode & 0o077:
            self.say(f"{path} holds passwords, and others than its owner may read it: chmod 600 {path}")
        options = Options(settings.ENVIRONMENT.data, plain, authority, tuple(without), last)
        if dry_run:
            results = rehearse(found, options, say=self.say)
        else:
            results = migrate(found, options, say=self.say, actor=None)
            self.say("")
        self._report(results, dry_run)

    def _report(self, results: Sequence[Result], dry_run: bool) -> None:
        failed = [result for result in results if result.error]
        if not dry_run:
            rows = [
                (one.account.line, one.account.mailbox, one.published.messages, f"{one.published.size_bytes / 1e6:.1f}",
                 f"{one.took_s:.0f}", one.error.partition("\n")[0] or "all here")
                for one in results
            ]
            self.table(("LINE", "ADDRESS", "NEW", "MB", "SECONDS", "RESULT"), rows, as_json=False, empty="")
        if failed:
            lines = ", ".join(str(result.account.line) for result in failed)
            again = "" if dry_run else " Run it again: it takes up where it ended."
            raise CommandError(f"{len(failed)} of {len(results)} accounts failed, lines {lines}.{again}")
        self.say(f"{len(results)} accounts can be pulled." if dry_run else f"All {len(results)} accounts are here.")


def _storage(mailbox: Mailbox, as_json: bool) -> tuple[int | str | None, int | str | None]:
    """Used and allowed: numbers for programs, words for people."""
    storage = Storage.of(mailbox)
    if as_json:
        return storage.used_bytes, storage.quota_bytes
    used = "unknown" if storage.used_bytes is None else about(storage.used_bytes)
    return used, "unlimited" if storage.quota_bytes is None else size(storage.quota_bytes)
