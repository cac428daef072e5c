"""Mailboxes on the command line."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import transaction

from panel import system_users
from panel.mailboxes import sheet
from panel.mailboxes.importing import exported, import_mailboxes
from panel.mailboxes.models import BY_ADDRESS, Mailbox
from panel.mailboxes.services import change_mailbox, create_mailbox, find_mailbox, set_password
from panel.operations.management import base, rows, stops
from panel.operations.moving import mbsync
from panel.operations.moving.accounts import hosts_beyond_loopback, parse_host, read_accounts
from panel.operations.moving.services import Options, Result, migrate, rehearse
from panel.tenants import audit
from panel.tenants.changes import ServiceError
from panel.tenants.sign_in import second_factor

MOST_FOLDER = 200  # characters of a folder's name


class Command(stops.Command):
    noun = "mailbox"
    help = "Mailboxes: each has an address, a person and a main password. Suspending takes hold within a second."
    examples = """
        mailbox create ann@acme.example
        mailbox create bob@isp.example --tenant Acme
        mailbox suspend ann@acme.example --reason "password found in a leak"
        mailbox suspend ann@acme.example --sending-only --reason "writes to a bought list"
        mailbox import people.csv --tenant Acme --check
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
        create.add_argument("--quota", metavar="SIZE", help="how much it may hold: 5GB; no bound when left out")
        base.add_password_stdin(create)
        listing = acts.add_list(self.list, help="Show mailboxes.", examples="mailbox list --domain acme.example")
        listing.add_argument("--tenant", metavar="TENANT", help="only this tenant's")
        listing.add_argument("--domain", metavar="DOMAIN", help="only in this domain")
        show = acts.add("show", self.show, help="Show a mailbox, with what it holds and may hold.",
            examples="mailbox show ann@acme.example",)
        show.add_argument("address", metavar="ADDRESS")
        change = acts.add(
            "set", self.set, help="Give a mailbox another name or quota.",
            examples='mailbox set ann@acme.example --quota 5GB --name "Ann Archer"',
        )
        change.add_argument("address", metavar="ADDRESS")
        change.add_argument("--name", help="the person's name")
        change.add_argument("--quota", metavar="SIZE", help="how much it may hold: 5GB, or unlimited")
        password = acts.add(
            "password", self.set_password, help="Give a mailbox another main password.",
            examples="mailbox password ann@acme.example --password-stdin <file",
        )
        password.add_argument("address", metavar="ADDRESS")
        base.add_password_stdin(password)
        factor = acts.add(
            "second-factor", self.second_factor, help="Show or remove the second factor of a mailbox's person.",
            examples="""
                mailbox second-factor ann@acme.example
                mailbox second-factor ann@acme.example --reset --reason "lost the phone"
            """,
        )
        factor.add_argument("address", metavar="ADDRESS")
        factor.add_argument(
            "--reset", action="store_true",
            help="remove it: the main password alone opens the mailbox then, in mail programs too",
        )
        base.add_reason(factor, required=False)
        self.add_stops(acts, "ann@acme.example", "ADDRESS")

        take = acts.add(
            "import", self.import_, help="Make all mailboxes of a CSV, or none. The first line names its columns: "
            "address, password or hash (argon2id, bcrypt, sha512-crypt, pbkdf2; {BLF-CRYPT} and the like before it), "
            "quota (5 GB), name. A hash made elsewhere is replaced by ours at the first login.",
            examples="""
                mailbox import people.csv --tenant Acme --check
                mailbox import people.csv --tenant Acme
            """,
        )
        take.add_argument("file", metavar="FILE.csv")
        take.add_argument("--tenant", metavar="TENANT", required=True, help="whose the mailboxes will be")
        take.add_argument("--check", action="store_true", help="say what is wrong, or that nothing is; make nothing")
        take.add_argument(
            "--without-passwords", action="store_true",
            help="take rows with neither password nor hash; nobody can log in until a password is set",
        )
        give = acts.add(
            "export", self.export, help="Write a tenant's mailboxes as the CSV that import takes.",
            examples="""
                mailbox export --tenant Acme >people.csv
                mailbox export --tenant Acme --with-hashes --output people.csv
            """,
        )
        give.add_argument("--tenant", metavar="TENANT", required=True, help="whose mailboxes")
        give.add_argument(
            "--with-hashes", action="store_true", help="with the hashes of the main passwords: keep such a file secret"
        )
        give.add_argument("--output", metavar="FILE", help="write there, for this user only, not to standard output")

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

    def second_factor(self, *, address: str, reset: bool, reason: str) -> None:
        mailbox = find_mailbox(address)
        if reset:
            second_factor.remove(mailbox.person, actor=None, reason=reason)
        factor = second_factor.of(mailbox.person)
        said = f"has a second factor since {factor.created_at:%Y-%m-%d %H:%M} UTC" if factor else "has no second factor"
        must = second_factor.is_required(mailbox.person)
        self.done(f"The mailbox {mailbox} {said}{' and must have one' if must else ''}.", rows.of_mailbox(mailbox))

    def find(self, name: str) -> Mailbox:
        return find_mailbox(name)

    def row_of(self, subject: Mailbox) -> base.Row:
        return rows.of_mailbox(subject)

    def create(self, *, address: str, tenant: str | None, name: str, quota: str | None, from_stdin: bool) -> None:
        holder = base.find_tenant(tenant) if tenant is not None else None
        quota_bytes = base.read_bound(quota, "quota_bytes") if quota is not None else None
        password, made = self.password(address, from_stdin=from_stdin)
        mailbox = create_mailbox(
            address=address, password=password, tenant=holder, name=name, quota_bytes=quota_bytes, actor=None
        )
        self.done(f"The mailbox {mailbox} is made.", rows.of_mailbox(mailbox))
        self.show_password(str(mailbox), password, made)

    def list(self, *, tenant: str | None, domain: str | None) -> None:
        mailboxes = Mailbox.objects.select_related("address__domain", "address__tenant", "usage").order_by(*BY_ADDRESS)
        if tenant is not None:
            mailboxes = mailboxes.filter(tenant=base.find_tenant(tenant))
        if domain is not None:
            mailboxes = mailboxes.filter(address__domain=base.find_domain(domain))
        self.rows(
            map(rows.of_mailbox, mailboxes),
            ("address", "name", "tenant", "status", "used_bytes", "quota_bytes", "folder", "reason"),
            empty="There is no such mailbox: `manage.py mailbox create ADDRESS` makes one.",
        )

    def show(self, *, address: str) -> None:
        self.show_row(rows.of_mailbox(find_mailbox(address)))

    def set(self, *, address: str, name: str | None, quota: str | None) -> None:
        values: dict[str, Any] = {}
        if name is not None:
            values["name"] = name
        if quota is not None:
            values["quota_bytes"] = base.read_bound(quota, "quota_bytes")
        if not values:
            raise base.Usage("Say what to change: --name or --quota.")
        mailbox = find_mailbox(address)
        before = rows.of_mailbox(mailbox)
        change_mailbox(mailbox, actor=None, **values)
        self.unchanged(before, rows.of_mailbox(mailbox), f"the mailbox {mailbox}")
        self.done(f"The mailbox {mailbox} is changed.", rows.of_mailbox(mailbox))

    def set_password(self, *, address: str, from_stdin: bool) -> None:
        mailbox = find_mailbox(address)
        password, made = self.password(address, from_stdin=from_stdin)
        set_password(mailbox, password, actor=None)
        self.done(f"The password of {mailbox} is set.", rows.of_mailbox(mailbox))
        self.show_password(str(mailbox), password, made)

    def import_(self, *, file: str, tenant: str, check: bool, without_passwords: bool) -> None:
        path, owner = Path(file), base.find_tenant(tenant)
        tell = self.say if not self.as_json else lambda text: None
        done = import_mailboxes(
            path, owner, check=check, without_passwords=without_passwords, tell=tell, actor=None
        )
        count = f"{done.mailboxes:,} {'mailbox' if done.mailboxes == 1 else 'mailboxes'}"
        bare = f" {done.without_password:,} have no password yet." if done.without_password else ""
        if check:
            said = f"{count} can be imported into {owner}.{bare}"
        else:
            took = f"hashing took {done.hashed_s:.1f} s, writing {done.written_s:.1f} s"
            said = f"{count} of {owner} {'is' if done.mailboxes == 1 else 'are'} made; {took}.{bare}"
        self.done(said, {
            "tenant": str(owner), "mailboxes": done.mailboxes, "domains": list(done.domains), "checked_only": check,
            "without_password": done.without_password,
        })

    def export(self, *, tenant: str, with_hashes: bool, output: str | None) -> None:
        owner = base.find_tenant(tenant)
        if with_hashes:
            with transaction.atomic():
                audit.record(None, "tenant.hashes_exported", owner, tenant=owner)
        found = exported(owner, with_hashes=with_hashes)
        if output is None and self.as_json:
            self.json(list(found))
        elif output is None:
            sheet.write(found, self.stdout)  # type: ignore[arg-type]
        else:
            try:
                # Never shown to others, not for a moment; and nobody's file is overwritten.
                opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError as error:
                raise ServiceError(f"{output} can't be written: {error.strerror}.", "output") from None
            with os.fdopen(opened, "w", encoding="utf-8", newline="") as written:
                count = sheet.write(found, written)
            self.done(f"{count:,} mailboxes of {owner} are written to {output}.", {
                "tenant": str(owner), "mailboxes": count, "output": output,
            })

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
        self._leave_root(settings.ENVIRONMENT.data)
        options = Options(settings.ENVIRONMENT.data, plain, authority, tuple(without), last)
        if dry_run:
            results = rehearse(found, options, say=self.say)
        else:
            results = migrate(found, options, say=self.say, actor=None)
            self.say("")
        self._report(results, dry_run)

    def _leave_root(self, data: Path) -> None:
        """What comes from another host is no work for root, and what is kept of it is the mailserver's."""
        users = system_users.find() if os.geteuid() == 0 else None
        if users and data.stat().st_uid == users.uid:
            users.become()

    def _report(self, results: Sequence[Result], dry_run: bool) -> None:
        failed = [result for result in results if result.error]
        if not dry_run:
            results_of = [
                (one.account.line, one.account.mailbox, one.published.messages, f"{one.published.size_bytes / 1e6:.1f}",
                 f"{one.took_s:.0f}", one.error.partition("\n")[0] or "all here")
                for one in results
            ]
            self.table(("LINE", "ADDRESS", "NEW", "MB", "SECONDS", "RESULT"), results_of, empty="")
        if failed:
            lines = ", ".join(str(result.account.line) for result in failed)
            again = "" if dry_run else " Run it again: it takes up where it ended."
            raise CommandError(f"{len(failed)} of {len(results)} accounts failed, lines {lines}.{again}")
        self.say(f"{len(results)} accounts can be pulled." if dry_run else f"All {len(results)} accounts are here.")
