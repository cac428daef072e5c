"""App passwords on the command line."""

from collections.abc import Sequence
from typing import Any

from panel.mailboxes.models import Credential
from panel.mailboxes.services import (
    SCOPES,
    change_credential,
    create_credential,
    find_mailbox,
    freeze_credential,
    revoke_credential,
    unfreeze_credential,
)
from panel.operations.management import base, rows
from panel.tenants.changes import NotFound


class Command(base.Command):
    help = (
        "App passwords: one for each program that uses a mailbox, so that one can be taken away alone. "
        "The secret is shown once; only its hash is kept."
    )
    examples = """
        credential create shop@acme.example --label "web shop" --network 192.0.2.10 --expires 90d
        credential list shop@acme.example
        credential freeze 17 --reason "sent to strangers at night"
        credential revoke 17
    """

    def add_acts(self, acts: base.Acts) -> None:
        create = acts.add(
            "create", self.create, help="Make an app password and show it once.",
            examples="""
                credential create shop@acme.example --label "web shop"
                credential create ann@acme.example --scope imap --scope submission --expires 2027-12-31
            """,
        )
        create.add_argument("address", metavar="ADDRESS", help="the mailbox")
        create.add_argument("--label", default="", help="what uses it")
        create.add_argument(
            "--scope", action="append", metavar="SCOPE", dest="scopes",
            help=f"what it is for, may be repeated: {', '.join(SCOPES)}; submission when left out",
        )
        create.add_argument(
            "--expires", metavar="WHEN", help="2027-12-31, 2027-12-31T18:00 (UTC) or 90d (days from now)"
        )
        create.add_argument(
            "--network", action="append", metavar="NETWORK", dest="networks", default=[],
            help="from where it may be used, may be repeated: 192.0.2.0/24; anywhere when left out",
        )
        listing = acts.add_list(
            self.list, help="Show a mailbox's passwords, without their secrets.",
            examples="credential list shop@acme.example",
        )
        listing.add_argument("address", metavar="ADDRESS")
        show = acts.add("show", self.show, help="Show a password, without its secret.", examples="credential show 17")
        show.add_argument("number", metavar="ID", type=int, help="as `credential list` shows it")
        change = acts.add(
            "set", self.set, help="Change what an app password is for, from where and until when.",
            examples="credential set 17 --scope imap --scope submission --expires never",
        )
        change.add_argument("number", metavar="ID", type=int, help="as `credential list` shows it")
        change.add_argument("--label", help="what uses it")
        change.add_argument(
            "--scope", action="append", metavar="SCOPE", dest="scopes",
            help=f"what it is for, instead of all before; may be repeated: {', '.join(SCOPES)}",
        )
        change.add_argument("--expires", metavar="WHEN", help="2027-12-31, 2027-12-31T18:00 (UTC), 90d or never")
        change.add_argument(
            "--network", action="append", metavar="NETWORK", dest="networks",
            help='from where, instead of all before; may be repeated: 192.0.2.0/24; "" for anywhere',
        )
        for name, do, text in (
            ("freeze", self.freeze, "Let nobody log in with it for now."),
            ("unfreeze", self.unfreeze, "Let it log in again."),
            ("revoke", self.revoke, "Delete it for good."),
        ):
            why = ' --reason "odd hours"' if name == "freeze" else ""
            act = acts.add(name, do, help=text, examples=f"credential {name} 17{why}")
            act.add_argument("number", metavar="ID", type=int, help="as `credential list` shows it")
            if name != "revoke":
                base.add_reason(act, required=name == "freeze")

    def create(
        self, *, address: str, label: str, scopes: list[str] | None, expires: str | None, networks: list[str]
    ) -> None:
        mailbox = find_mailbox(address)
        credential, secret = create_credential(
            mailbox, label=label, scopes=scopes or ("submission",), networks=networks,
            expires_at=base.read_end(expires) if expires is not None else None, actor=None,
        )
        self.done(
            f"The {credential} of {mailbox} is made; its number is {credential.pk}.", rows.of_credential(credential)
        )
        if self.as_json:
            self.show_password(str(mailbox), secret, made=True)
        else:
            self.say(f"It is shown only now: {secret}")

    def list(self, *, address: str) -> None:
        mailbox = find_mailbox(address)
        credentials = Credential.objects.filter(mailbox=mailbox).select_related("mailbox__address__domain")
        self.rows(
            map(rows.of_credential, credentials), ("id", "password", "for", "from", "expires", "last_used", "state"),
            empty="There is no password.",
        )

    def show(self, *, number: int) -> None:
        self.show_row(rows.of_credential(_find(number)))

    def set(
        self, *, number: int, label: str | None, scopes: Sequence[str] | None, expires: str | None,
        networks: Sequence[str] | None,
    ) -> None:
        values: dict[str, Any] = {
            name: value for name, value in (("label", label), ("scopes", scopes)) if value is not None
        }
        if expires is not None:
            values["expires_at"] = None if expires.strip().lower() == "never" else base.read_end(expires)
        if networks is not None:
            values["networks"] = [network for network in networks if network]
        if not values:
            raise base.Usage("Say what to change: --label, --scope, --expires or --network.")
        credential = _find(number)
        before = rows.of_credential(credential)
        change_credential(credential, actor=None, **values)
        self.unchanged(before, rows.of_credential(credential), f"the {credential}")
        self.done(f"The {credential} of {credential.mailbox} is changed.", rows.of_credential(credential))

    def freeze(self, *, number: int, reason: str) -> None:
        credential = _find(number)
        freeze_credential(credential, reason=reason, actor=None)
        self.done(f"The {credential} of {credential.mailbox} is frozen.", rows.of_credential(credential))

    def unfreeze(self, *, number: int, reason: str) -> None:
        credential = _find(number)
        unfreeze_credential(credential, reason=reason, actor=None)
        self.done(f"The {credential} of {credential.mailbox} is not frozen any more.", rows.of_credential(credential))

    def revoke(self, *, number: int) -> None:
        credential = _find(number)
        row = rows.of_credential(credential)
        revoke_credential(credential, actor=None)
        self.done(f"The {row['password']} of {row['mailbox']} is deleted.", row)


def _find(number: int) -> Credential:
    credentials = Credential.objects.select_related("mailbox__address__domain", "mailbox__address__tenant")
    credential = credentials.filter(pk=number).first() if 0 < number < 2**63 else None
    if credential is None:
        raise NotFound(f"There is no password {number}: `manage.py credential list ADDRESS` shows the numbers.")
    return credential
