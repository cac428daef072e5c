"""A panel account's own pages in the console: password, second factor, passkeys, sessions.

What they do is tenants/sign_in's (account.py, passkey_pages.py), as in the admin.
"""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from panel.console import persons
from panel.console.access import account_page
from panel.console.frame import page
from panel.console.places import AccountPlace, MailboxPlace
from panel.mailboxes import links
from panel.tenants.sign_in import account, passkey_pages
from panel.tenants.sign_in.door import Door

TEMPLATES = {
    "account/own.html": "console/account.html",
    "account/enrol.html": "console/account_enrol.html",
    "account/passkey.html": "console/account_passkey.html",
    "account/codes.html": "console/account_codes.html",
    "admin/posthouse/confirm.html": "console/confirm.html",
}


class ConsoleDoor(Door):
    sign_in = "console:sign-in"
    of = "console:account-"  # how the names of the addresses begin

    def __init__(self, place: AccountPlace | MailboxPlace) -> None:
        self.place = place

    @property
    def above(self) -> str:
        """What the page above them is called."""
        return _("Your account")

    def url(self, name: str) -> str:
        return reverse(f"{self.of}{name}")

    def page(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        own = self.url("own")
        crumbs = [] if request.path == own else [(self.above, own)]
        return page(
            request, self.place, TEMPLATES[template], title, crumbs=crumbs, of=self.of, own_url=own, **context
        )


class AccountDoor(ConsoleDoor):
    def page(self, request: HttpRequest, template: str, title: str, **context: Any) -> HttpResponse:
        if template == "account/own.html":
            reached = {each.pk for each in persons.reached_by(self.place.account, self.place.ip)}
            context = {**context, "ties": list(links.of_account(self.place.account)), "reached": reached}
        return super().page(request, template, title, **context)


def _in_the_console(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    @account_page(change=True)
    def inside(request: HttpRequest, place: AccountPlace, **named: Any) -> HttpResponse:
        return view(request, **named, door=AccountDoor(place))

    return inside


@account_page()
def own(request: HttpRequest, place: AccountPlace) -> HttpResponse:
    """The account's page, on which nothing is changed."""
    return account.own(request, AccountDoor(place))


password = _in_the_console(account.change_password)
end_session = _in_the_console(account.end_session)
end_all_sessions = _in_the_console(account.end_all_sessions)
second_factor = _in_the_console(account.enrol)
remove_second_factor = _in_the_console(account.remove)
recovery_codes = _in_the_console(account.renew_recovery_codes)
add_passkey = _in_the_console(passkey_pages.add)
offer_passkey = _in_the_console(passkey_pages.offer)
prove_passkey = _in_the_console(passkey_pages.prove)
rename_passkey = _in_the_console(passkey_pages.rename)
remove_passkey = _in_the_console(passkey_pages.remove)
