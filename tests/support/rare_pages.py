"""Pages that no address answers with by itself: between two steps, shown once, in place of another, and empty.

Of the console and of the ways in; for pictures of them and for axe.
"""

from collections.abc import Iterator
from datetime import timedelta
from unittest import mock

from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone, translation

from panel.console import refusal
from panel.mailboxes import inbox
from panel.mailboxes.models import Credential, LoginEvent, Mailbox, MailboxLink, MailboxUsage, RecoveryAsked
from panel.operations import password_reset
from panel.operations import services as operations
from panel.rules.lockout import MOST_GUESSES, Lock
from panel.sending.models import Message
from panel.tenants.models import Tenant, User
from panel.tenants.sign_in import passkeys, second_factor
from tests.support import world
from tests.support.authenticator import code_of
from tests.support.console import House
from tests.support.ordinary_day import LAPTOP
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
    for role, steps in (
        ("owner", _own_account), ("owner", _made), ("reseller", _empty), ("person", _made_by_a_person),
        ("person", _letters), ("person", _in_trouble), ("person", _sent), ("person", _own_factor),
        ("person", _nothing_yet),
    ):
        client = house.client(role)
        client.defaults |= {"HTTP_ACCEPT_LANGUAGE": language, "HTTP_USER_AGENT": LAPTOP, "REMOTE_ADDR": ELSEWHERE}
        with undone(), mock.patch.object(passkeys, "site", return_value=SITE):
            yield from steps(house, client)
        client.defaults |= {"REMOTE_ADDR": "127.0.0.1"}
        del client.defaults["HTTP_ACCEPT_LANGUAGE"], client.defaults["HTTP_USER_AGENT"]
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
    for program in ("apple", "thunderbird", "outlook"):
        asked, given = f"{path}?for={program}", {"label": program.title(), "imap": "on", "submission": "on"}
        yield _marked(f"me-password-once-{program}", asked, client.post(asked, given))
    frozen = Credential.objects.get(mailbox=house.mailbox, label="Old phone")
    yield from _got(client, "me-unfreeze-password", reverse("console:me-unfreeze-password", args=[frozen.pk]))
    main = LoginEvent.objects.filter(mailbox=house.mailbox, credential=_main(house).pk).latest("pk")
    yield from _got(client, "me-freeze-main", reverse("console:me-freeze-sign-in", args=[main.pk]))


def _letters(house: House, client: Client) -> Iterator[Shown]:
    """Each with the warning that it deserves, and one with its formatting, without its pictures and with them."""
    found = {each["subject"]: each["kept"].base for each in client.get(reverse("console:me-mail")).context["letters"]}
    yield from _got(client, "me-letter-forged", reverse("console:me-letter", args=[found["Your password ends today"]]))
    path = reverse("console:me-letter", args=[found["What is new in spring"]])
    yield from _got(client, "me-letter-formatted", path)
    yield from _got(client, "me-letter-pictures", f"{path}?pictures=1")
    yield from _got(client, "me-letter-text", f"{path}?as=text")
    for name in ("me-letter-frame", "me-letter-pictures"):
        framed = reverse(f"console:{name}", args=[found["What is new in spring"]])
        yield from _got(client, f"framed-{name}", framed)


def _in_trouble(house: House, client: Client) -> Iterator[Shown]:
    """A mailbox that doesn't do what it should, and what waits to be confirmed."""
    me, own = reverse("console:me"), reverse("console:me-sign-ins")
    mailboxes = Mailbox.objects.filter(pk=house.mailbox.pk)
    with undone():
        mailboxes.update(quota_bytes=1 << 20)
        yield from _got(client, "me-full", f"{me}?shown=full")
    with undone():
        operations.suspend(house.mailbox, reason="it sent junk", sending_only=True, actor=None)
        yield from _got(client, "me-no-sending", f"{me}?shown=no-sending")
    with undone():
        RecoveryAsked.objects.update(sent_at=timezone.now() - timedelta(days=2))
        yield from _got(client, "me-sign-ins-over", f"{own}?shown=over")
    with undone():
        RecoveryAsked.objects.all().delete()
        mailboxes.update(recovery="ann.jones@private.test")
        yield from _got(client, "me-sign-ins-recovery", f"{own}?shown=recovery")


def _sent(house: House, client: Client) -> Iterator[Shown]:
    sent = reverse("console:me-sent")
    yield from _got(client, "me-sent-searched", f"{sent}?q=nobody-writes-this")
    for name, subject in (("waiting", "Minutes of Monday's meeting"), ("failed", "Offer for the spring catalogue")):
        found = Message.objects.filter(subject=subject, tenant=house.acme).latest("pk")
        yield from _got(client, f"me-sent-{name}", reverse("console:me-sent-message", args=[found.queue_id]))


def _own_factor(house: House, client: Client) -> Iterator[Shown]:
    enrol, given = reverse("console:me-second-factor"), {"password": world.PASSWORD}
    yield from _got(client, "me-add-passkey", reverse("console:me-add-passkey"))
    with undone():
        Tenant.objects.filter(pk=house.acme.pk).update(people_second_factor_required=True)
        yield from _got(client, "me-second-factor-required", f"{enrol}?shown=required")
        yield from _got(client, "me-add-passkey-required", f"{reverse('console:me-add-passkey')}?shown=required")
    secret = "".join(client.get(enrol).context["secret"].split())
    yield _marked("me-codes", enrol, client.post(enrol, {**given, "code": code_of(secret)}))
    factor = second_factor.of(house.mailbox.person)
    assert factor is not None
    key = factor.passkeys.create(name="Work laptop", credential_id="y", public_key=b"y")
    yield from _got(client, "me-sign-ins-protected", f"{reverse('console:me-sign-ins')}?shown=protected")
    for name, more in (("remove-second-factor", {}), ("recovery-codes", {}), ("remove-passkey", {"passkey": key.pk})):
        yield from _got(client, f"me-{name}", reverse(f"console:me-{name}", kwargs=more))
    browser = Client(headers={"accept-language": client.defaults["HTTP_ACCEPT_LANGUAGE"]}, REMOTE_ADDR=ELSEWHERE)
    start = {"username": str(house.mailbox), "password": world.PASSWORD}
    at = browser.post(reverse("console:sign-in"), start)["Location"]
    yield from _got(browser, "me-sign-in-code", f"{at}&shown=person")


def _nothing_yet(house: House, client: Client) -> Iterator[Shown]:
    """A mailbox of today."""
    LoginEvent.objects.filter(mailbox=house.mailbox).delete()
    Message.objects.filter(credential__in=house.mailbox.credentials.all()).update(credential=None)
    Credential.objects.filter(mailbox=house.mailbox, kind=Credential.Kind.APP).delete()
    MailboxUsage.objects.filter(mailbox=house.mailbox).delete()
    MailboxLink.objects.all().delete()
    RecoveryAsked.objects.all().delete()
    with mock.patch.object(inbox, "newest", return_value=inbox.Listing([], False)):
        for name in ("me", "me-mail", "me-passwords", "me-sent", "me-sign-ins"):
            yield from _got(client, f"{name}-empty", f"{reverse(f'console:{name}')}?shown=empty")


def _main(house: House) -> Credential:
    return house.mailbox.credentials.get(kind=Credential.Kind.MAIN)


def _empty(house: House, client: Client) -> Iterator[Shown]:
    for name in EMPTY:
        yield from _got(client, f"{name}-empty", reverse(f"console:{name}", kwargs={"tenant": house.above.pk}))


def _with_app(account: User) -> None:
    secret = second_factor.new_secret()
    second_factor.add(account, secret, code_of(secret))
