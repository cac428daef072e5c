"""App passwords on the command line."""

import re
from datetime import UTC, datetime, timedelta

from django.utils import timezone

from panel.mailboxes.models import Credential
from panel.mailboxes.services import (
    SCOPES,
    create_credential,
    find_mailbox,
    freeze_credential,
    revoke_credential,
    unfreeze_credential,
)
from panel.operations.management import base
from panel.tenants.changes import ServiceError


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
        listing = acts.add_list(self.list, help="Show a mailbox's passwords, without their secrets.")
        listing.add_argument("address", metavar="ADDRESS")
        for name, do, text in (
            ("freeze", self.freeze, "Let nobody log in with it for now."),
            ("unfreeze", self.unfreeze, "Let it log in again."),
            ("revoke", self.revoke, "Delete it for good."),
        ):
            act = acts.add(name, do, help=text)
            act.add_argument("number", metavar="ID", type=int, help="as `credential list` shows it")
            if name != "revoke":
                base.add_reason(act, required=name == "freeze")

    def create(
        self, *, address: str, label: str, scopes: list[str] | None, expires: str | None, networks: list[str]
    ) -> None:
        mailbox = find_mailbox(address)
        credential, secret = create_credential(
            mailbox, label=label, scopes=scopes or ("submission",), networks=networks,
            expires_at=_read_end(expires) if expires else None, actor=None,
        )
        self.say(f"The {credential} of {mailbox} is made; its number is {credential.pk}.")
        self.say(f"It is shown only now: {secret}")

    def list(self, *, address: str, as_json: bool) -> None:
        rows = [
            (one.pk, one, one.scopes or list(SCOPES), one.networks, _date(one.expires_at), _date(one.last_used_at),
             f"frozen: {one.frozen_reason}" if one.frozen_at else "")
            for one in Credential.objects.filter(mailbox=find_mailbox(address))
        ]
        self.table(
            ("ID", "PASSWORD", "FOR", "FROM", "EXPIRES", "LAST USED", "STATE"), rows, as_json=as_json,
            empty="There is no password.",
        )

    def freeze(self, *, number: int, reason: str) -> None:
        credential = _find(number)
        freeze_credential(credential, reason=reason, actor=None)
        self.say(f"The {credential} of {credential.mailbox} is frozen.")

    def unfreeze(self, *, number: int, reason: str) -> None:
        credential = _find(number)
        unfreeze_credential(credential, reason=reason, actor=None)
        self.say(f"The {credential} of {credential.mailbox} is not frozen any more.")

    def revoke(self, *, number: int) -> None:
        credential = _find(number)
        name = f"The {credential} of {credential.mailbox}"
        revoke_credential(credential, actor=None)
        self.say(f"{name} is deleted.")


def _find(number: int) -> Credential:
    credentials = Credential.objects.select_related("mailbox__address__domain", "mailbox__address__tenant")
    credential = credentials.filter(pk=number).first() if 0 < number < 2**63 else None
    if credential is None:
        raise ServiceError(f"There is no password {number}: `manage.py credential list ADDRESS` shows the numbers.")
    return credential


def _read_end(text: str) -> datetime:
    days = re.fullmatch(r"([0-9]{1,5})d", text.strip())
    if days:
        return timezone.now() + timedelta(days=int(days[1]))
    try:
        end = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ServiceError(f"{text!r} is no date: write 2027-12-31, 2027-12-31T18:00 or 90d.", "expires_at") from None
    return end if end.tzinfo else end.replace(tzinfo=UTC)


def _date(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else ""
