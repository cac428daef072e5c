"""A mailbox's rules on the command line."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from django.utils import timezone

from panel.mailboxes.models import Mailbox
from panel.mailboxes.rule_services import PARTS, Rules, change_rules, clear_rules, rules_of
from panel.mailboxes.services import find_mailbox
from panel.operations.management import base
from panel.tenants.changes import ServiceError


class Command(base.Command):
    help = (
        "What a mailbox does with its mail before it is stored: answer while its owner is away, forward, put what is "
        "marked as junk into Junk, block senders. The same wherever its mail is stored."
    )
    examples = """
        rule show ann@acme.example
        rule set ann@acme.example --vacation on --until 2026-08-31 --text "Back in September."
        rule set ann@acme.example --forward-to ann@elsewhere.example --keep no
        rule set ann@acme.example --junk on --block spam.example --unblock bob@partner.example
        rule clear ann@acme.example vacation
    """

    def add_acts(self, acts: base.Acts) -> None:
        show = acts.add(
            "show", self.show, help="Show the rules of a mailbox.", examples="rule show ann@acme.example"
        )
        show.add_argument("address", metavar="ADDRESS")
        change = acts.add(
            "set", self.set, help="Change what is given of a mailbox's rules, and leave the rest as it is.",
            examples="""
                rule set ann@acme.example --vacation on --subject "Away" --text-stdin <away.txt
                rule set ann@acme.example --from 2026-08-01 --until 2026-08-31 --days 14
                rule set ann@acme.example --forward-to bob@acme.example --forward-to ann@elsewhere.example --keep yes
            """,
        )
        change.add_argument("address", metavar="ADDRESS")
        vacation = change.add_argument_group("vacation", "Each sender is answered once in so many days; lists never.")
        vacation.add_argument("--vacation", choices=("on", "off"), help="answer, or no more")
        vacation.add_argument("--from", dest="first", metavar="DAY", help='first day, such as 2026-08-01; "" for none')
        vacation.add_argument("--until", dest="last", metavar="DAY", help='the last day; "" for none. Days are in UTC')
        vacation.add_argument("--subject", help='of the answer; "" for that of the mail, with "Auto:" before it')
        vacation.add_argument("--text", help="what is answered")
        vacation.add_argument("--text-stdin", action="store_true", help="read what is answered from standard input")
        vacation.add_argument("--days", type=int, metavar="N", help="in which a sender is answered once; 7 unless told")
        forward = change.add_argument_group("forward", "What is sent on counts as sent by the mailbox's tenant.")
        forward.add_argument(
            "--forward-to", action="append", metavar="ADDRESS", help="in place of where it went before; may be repeated"
        )
        forward.add_argument("--keep", choices=("yes", "no"), help="whether a copy stays here; yes unless told")
        junk = change.add_argument_group("junk and block list")
        junk.add_argument("--junk", choices=("on", "off"), help="what a spam filter marked goes into Junk")
        junk.add_argument(
            "--block", action="append", default=[], metavar="SENDER", help="an address, or a domain with all below it"
        )
        junk.add_argument("--unblock", action="append", default=[], metavar="SENDER", help="take it off the list")
        clear = acts.add(
            "clear", self.clear, help="Take rules away; all of them unless some are named.",
            examples="rule clear ann@acme.example vacation forward",
        )
        clear.add_argument("address", metavar="ADDRESS")
        clear.add_argument("parts", nargs="*", metavar="RULE", help=f"one of {', '.join(PARTS)}")

    def show(self, *, address: str) -> None:
        mailbox = find_mailbox(address)
        self._show(mailbox, rules_of(mailbox))

    def set(
        self, *, address: str, vacation: str | None, first: str | None, last: str | None, subject: str | None,
        text: str | None, text_stdin: bool, days: int | None, forward_to: Sequence[str] | None, keep: str | None,
        junk: str | None, block: Sequence[str], unblock: Sequence[str],
    ) -> None:
        typed = base.from_standard_input(sys.stdin.read) if text_stdin else text
        given: dict[str, Any] = {
            "vacation": None if vacation is None else vacation == "on",
            "vacation_subject": subject, "vacation_text": typed,
            "vacation_days": days, "forward_to": forward_to, "forward_keep": None if keep is None else keep == "yes",
            "junk": None if junk is None else junk == "on",
        }
        values = {name: value for name, value in given.items() if value is not None}
        for name, day in (("vacation_from", first), ("vacation_until", last)):
            if day is not None:
                values[name] = _day(day, name)
        if not values and not block and not unblock:
            raise base.Usage("Nothing is to be changed: `rule set --help` shows what can be.")
        mailbox = find_mailbox(address)
        before = rules_of(mailbox)
        after = change_rules(mailbox, **values, block=block, unblock=unblock, actor=None)
        self.unchanged(asdict(before), asdict(after), f"what becomes of mail to {mailbox}")
        self._show(mailbox, after)

    def clear(self, *, address: str, parts: Sequence[str]) -> None:
        mailbox = find_mailbox(address)
        before = rules_of(mailbox)
        after = clear_rules(mailbox, parts or tuple(PARTS), actor=None)
        self.unchanged(asdict(before), asdict(after), f"what becomes of mail to {mailbox}")
        self._show(mailbox, after)

    def _show(self, mailbox: Mailbox, rules: Rules) -> None:
        if self.as_json:
            self.json({"address": str(mailbox), **asdict(rules)})
            return
        said = rules.sentences(timezone.now().date())
        if not said:
            self.say(f"{mailbox} has no rules: its mail is stored as it comes.")
            return
        self.say(f"{mailbox}:")
        for sentence in said:
            self.say(f"  {sentence}")
        if rules.vacation:
            self.say(f"  Its answer{f' ({rules.vacation_subject})' if rules.vacation_subject else ''}:")
            for line in rules.vacation_text.split("\n"):
                self.say(f"    {line}")


def _day(text: str, field: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ServiceError(f"{text!r} is no day: write it as 2026-08-31.", field) from None
