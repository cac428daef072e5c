"""A person's second factor: set up, changed and removed as an account's is (console/account, tenants/sign_in).

It is asked for by the console. A mail program gives a password alone, so while there is a second factor the main
password opens none (mailserver/directory/logins); before it is set up the page names those that it would lock out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy

from panel.console.access import mailbox_page
from panel.console.account import ConsoleDoor
from panel.console.own_sign_ins import BY, OWN, main_password
from panel.console.places import MailboxPlace
from panel.mailboxes import passwords
from panel.mailboxes.models import LoginEvent, Mailbox
from panel.rules.sign_in import PROTOCOL
from panel.tenants.models import User
from panel.tenants.sign_in import account, passkey_pages, second_factor

LATELY = timedelta(days=30)
MOST_READ = 200  # of the newest sign-ins with the main password
MOST_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Program:
    """A mail program that signed in with the main password, as far as it is known: what it does, and from where."""

    does: Any
    event: LoginEvent  # the last


@dataclass(frozen=True, slots=True)
class LockedOut:
    """The programs that the main password opened lately: those that are shown, and whether there are more."""

    programs: Sequence[Program]
    has_more: bool


class PersonDoor(ConsoleDoor):
    of = "console:me-"
    weakens = gettext_lazy("Whoever learns your main password can then sign in as you, in mail programs too.")
    is_weaker = gettext_lazy(
        "Your second factor is removed; your main password alone opens the mailbox, in mail programs too."
    )
    place: MailboxPlace

    @property
    def above(self) -> str:
        return str(OWN)

    def account(self, request: HttpRequest) -> User:
        return self.place.account

    def is_password(self, account: User, password: str) -> bool:
        return passwords.verify_main(password, main_password(self.place.mailbox).secret)

    def verified(self, request: HttpRequest, is_so: bool) -> None:
        # By a tie the session is a panel account's: whether that one came with a second factor stays as it is.
        if self.place.tied is None:
            super().verified(request, is_so)

    def url(self, name: str) -> str:
        return reverse("console:me-sign-ins") if name == "own" else super().url(name)

    def page(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        begins = template in ("account/enrol.html", "account/passkey.html")
        if begins and second_factor.of(self.place.account) is None:
            context["locked_out"] = locked_out(self.place.mailbox)
            context["shuts_out"] = self.place.tied and not second_factor.of(self.place.tied) and self.place.tied
        return super().page(request, template, title, **context)


def locked_out(mailbox: Mailbox) -> LockedOut:
    """What signed in with the main password lately, the last first: two queries."""
    rows = LoginEvent.objects.filter(
        mailbox=mailbox, credential=main_password(mailbox).pk, outcome=LoginEvent.Outcome.OK,
        last_at__gt=timezone.now() - LATELY,
    ).exclude(protocol=PROTOCOL)
    last: dict[tuple[str, str | None], LoginEvent] = {}
    for event in rows.order_by("-pk")[:MOST_READ]:
        last.setdefault((event.protocol, event.ip), event)
    found = sorted(last.values(), key=lambda event: event.last_at, reverse=True)
    programs = [Program(BY.get(each.protocol, each.protocol.upper()), each) for each in found[:MOST_SHOWN]]
    return LockedOut(programs, len(found) > MOST_SHOWN)


def _of_the_person(view: Callable[..., HttpResponse], *, sets_up: bool = False) -> Callable[..., HttpResponse]:
    @mailbox_page(change=True, sets_up=sets_up)
    def inside(request: HttpRequest, place: MailboxPlace, **named: Any) -> HttpResponse:
        return view(request, **named, door=PersonDoor(place))

    return inside


set_up = _of_the_person(account.enrol, sets_up=True)
remove = _of_the_person(account.remove)
recovery_codes = _of_the_person(account.renew_recovery_codes)
add_passkey = _of_the_person(passkey_pages.add, sets_up=True)
offer_passkey = _of_the_person(passkey_pages.offer, sets_up=True)
prove_passkey = _of_the_person(passkey_pages.prove)
rename_passkey = _of_the_person(passkey_pages.rename)
remove_passkey = _of_the_person(passkey_pages.remove)
