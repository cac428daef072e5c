"""Pages that no address answers with by itself: between two steps, shown once, in place of another, and empty.

Of the console and of the ways in; for pictures of them and for axe.
"""

from collections.abc import Iterator
from unittest import mock

from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import translation

from panel.console import refusal
from panel.operations import password_reset
from panel.operations import services as operations
from panel.rules.lockout import MOST_GUESSES, Lock
from panel.tenants.models import User
from panel.tenants.sign_in import passkeys, second_factor
from tests.support import world
from tests.support.authenticator import code_of
from tests.support.console import House
from tests.support.shown import SENT, Shown, kept
from tests.support.standing import undone

ELSEWHERE = "198.51.100.7"
SITE = passkeys.Site("panel.test", "https://panel.test")
EMPTY = ("home", "domains", "mailboxes", "aliases", "messages", "usage", "audit")


def rare_pages(house: House, language: str) -> Iterator[Shown]:
    headers = {"accept-language": language}
    browser = Client(headers=headers, REMOTE_ADDR=ELSEWHERE)
    for ways in (_forgotten, _second_step, _locked):
        browser.cookies.clear()
        with undone(), mock.patch.object(passkeys, "site", return_value=SITE):
            yield from ways(house, browser)
    yield from _in_place_of_a_page(house, language)
    for role, steps in (("owner", _own_account), ("owner", _made), ("person", _made_by_a_person), ("reseller", _empty)):
        client = house.client(role)
        client.defaults["HTTP_ACCEPT_LANGUAGE"] = language
        with undone(), mock.patch.object(passkeys, "site", return_value=SITE):
            yield from steps(house, client)
        del client.defaults["HTTP_ACCEPT_LANGUAGE"]
    yield from _got(house.client("support viewing"), "looked-into", _tenants(house, "home"), language)
    yield from _got(house.client("no tenant"), "tenants-none", reverse("console:tenants"), language)


def _got(client: Client, name: str, path: str, language: str = "") -> Iterator[Shown]:
    answer = client.get(path, headers={"accept-language": language} if language else None)
    yield kept(name, path, answer)


def _tenants(house: House, name: str, **more: int) -> str:
    return reverse(f"console:{name}", kwargs={"tenant": house.acme.pk, **more})


def _marked(name: str, path: str, answer: HttpResponse) -> Shown:
    """What a form was answered with: its address is another's than the form's."""
    return kept(name, f"{path}{'&' if '?' in path else '?'}shown={name}", answer)


def _forgotten(house: House, browser: Client) -> Iterator[Shown]:
    forgot, email = reverse("forgot"), str(house.accounts["owner"].email)
    yield from _got(browser, "forgot", forgot)
    yield _marked("forgot-refused", forgot, browser.post(forgot, SENT))
    yield _marked("forgot-sent", forgot, browser.post(forgot, {"email": email}))
    tokens: list[str] = []
    password_reset.ask(email, ip=ELSEWHERE, link=lambda token: tokens.append(token) or "/")  # type: ignore[func-returns-value]
    yield from _got(browser, "reset", reset := reverse("reset", args=tokens))
    yield _marked("reset-refused", reset, browser.post(reset, {"new": "short", "again": "other"}))
    yield from _got(browser, "reset-over", reverse("reset", args=["x"]))
    yield from _got(browser, "invitation-over", reverse("console:invitation", args=["x"]))


def _second_step(house: House, browser: Client) -> Iterator[Shown]:
    for name, role, start in (("", "owner", "console:sign-in"), ("admin-", "operator", "admin:login")):
        account = house.accounts[role]
        _with_app(account)
        given = {"username": str(account.email), "password": world.PASSWORD}
        at = browser.post(reverse(start), given)["Location"]
        yield from _got(browser, f"{name}sign-in-code", at)
        yield _marked(f"{name}sign-in-code-refused", at, browser.post(at, {"code": "000000"}))
        yield from _got(browser, f"{name}sign-in-recovery", f"{at}&recovery=1")


def _locked(house: House, browser: Client) -> Iterator[Shown]:
    for name, start in (("", "console:sign-in"), ("admin-", "admin:login")):
        path, email = reverse(start), f"{name}nobody@elsewhere.test"
        for guess in range(MOST_GUESSES[Lock.ACCOUNT_FROM_NETWORK] + 1):
            answer = browser.post(path, {"username": email, "password": f"guess {guess}"})
        yield _marked(f"{name}sign-in-locked", path, answer)


def _in_place_of_a_page(house: House, language: str) -> Iterator[Shown]:
    path = reverse("console:sign-in")
    forged = house.client("anonymous", enforce_csrf_checks=True).post(path, headers={"accept-language": language})
    yield _marked("csrf", path, forged)
    asked = RequestFactory().get("/failed/")
    with translation.override(language):
        yield kept("failed", "/failed/", refusal.failed(asked))
        yield kept("not-yours", "/forbidden/", refusal.forbidden(asked))
    with undone():
        operations.suspend(house.acme, reason="unpaid since March", actor=None)
        client = house.client("owner")
        yield from _got(client, "home-suspended", f"{_tenants(house, 'home')}?shown=suspended", language)
        path = _tenants(house, "add-alias")
        answer = client.post(path, SENT, headers={"accept-language": language})
        yield _marked("stopped", path, answer)


def _own_account(house: House, client: Client) -> Iterator[Shown]:
    account, enrol = house.accounts["owner"], reverse("console:account-second-factor")
    given = {"password": world.PASSWORD}
    yield from _got(client, "account-add-passkey", reverse("console:account-add-passkey"))
    secret = "".join(client.get(enrol).context["secret"].split())
    yield _marked("account-codes", enrol, client.post(enrol, {**given, "code": code_of(secret)}))
    factor = second_factor.of(account)
    assert factor is not None
    key = factor.passkeys.create(name="Work laptop", credential_id="x", public_key=b"x")
    yield from _got(client, "account-own-protected", f"{reverse('console:account-own')}?shown=protected")
    for name, more in (
        ("remove-second-factor", {}), ("recovery-codes", {}), ("rename-passkey", {"passkey": key.pk}),
        ("remove-passkey", {"passkey": key.pk}),
    ):
        yield from _got(client, f"account-{name}", reverse(f"console:account-{name}", kwargs=more))


def _made(house: House, client: Client) -> Iterator[Shown]:
    """Secrets, shown once."""
    path = _tenants(house, "add-app-password", mailbox=house.mailbox.pk)
    yield _marked("app-password-once", path, client.post(path, {"label": "web shop", "scopes": ["submission"]}))
    path = _tenants(house, "mailbox-password", mailbox=house.mailbox.pk)
    yield _marked("mailbox-password-once", path, client.post(path, {"way": "made"}))
    path = _tenants(house, "add-mailbox")
    given = {"address": "greta@acme.test", "name": "Greta", "way": "made"}
    yield _marked("mailbox-once", path, client.post(path, given))


def _made_by_a_person(house: House, client: Client) -> Iterator[Shown]:
    path = reverse("console:me-add-password")
    yield _marked("me-password-once", path, client.post(path, {"label": "Tablet", "imap": "on"}))


def _empty(house: House, client: Client) -> Iterator[Shown]:
    for name in EMPTY:
        yield from _got(client, f"{name}-empty", reverse(f"console:{name}", kwargs={"tenant": house.above.pk}))


def _with_app(account: User) -> None:
    secret = second_factor.new_secret()
    second_factor.add(account, secret, code_of(secret))
