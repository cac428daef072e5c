"""Logins on the command line."""

from datetime import datetime

from panel.mailboxes.models import LoginEvent
from panel.mailboxes.services import find_mailbox
from panel.operations.management import base

MOST_SHOWN = 100


class Command(base.Command):
    help = (
        "Logins as the mailserver saw them, and failed sign-ins to the panel: when, from where, by which protocol "
        "and password, and what came of it. "
        "Alike ones are counted in one line. After 10 wrong passwords in 15 minutes for an account from one network, "
        "or 30 from one network or for one account, further ones are told to come again later; that ends by itself, "
        "and networks from which an account logged in lately are spared by the last two."
    )
    examples = """
        login list
        login list --mailbox shop@acme.example
        login list --failed --json
    """

    def add_acts(self, acts: base.Acts) -> None:
        listing = acts.add_list(
            self.list, help=f"Show the latest {MOST_SHOWN}, the newest first.", examples="login list --failed"
        )
        listing.add_argument("--mailbox", metavar="ADDRESS", help="only those to this mailbox")
        listing.add_argument("--failed", action="store_true", help="only those that didn't get in")

    def list(self, *, mailbox: str | None, failed: bool) -> None:
        events = LoginEvent.objects.all()
        if mailbox is not None:
            events = events.filter(mailbox=find_mailbox(mailbox))
        if failed:
            events = events.exclude(outcome=LoginEvent.Outcome.OK)
        rows = [
            (_when(one.at), _when(one.last_at), one.count, one.login, one.get_outcome_display(),
             one.ip or "many networks", one.protocol, one.credential_text)
            for one in events[:MOST_SHOWN]
        ]
        self.table(
            ("FIRST", "LAST", "COUNT", "LOGIN", "OUTCOME", "FROM", "BY", "PASSWORD"), rows,
            empty="Nobody has tried to log in.",
        )


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
