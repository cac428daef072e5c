"""The console in a real browser: a tenant's owner, and then the person of a mailbox that the owner has added."""

import re

import pytest
from playwright.sync_api import Page

from tests.support.browser import open_page, picture
from tests.support.installation import PASSWORD, until

pytestmark = [pytest.mark.browser, pytest.mark.once("sqlite")]

OWNER, OWNER_PASSWORD = "boss@elsewhere.example", "an unusual password"
ANN, FIRST_PASSWORD, NEW_PASSWORD = "ann@demo.test", "a first unusual one", "another unusual one"
MAIN = "main .btn-primary"


def sign_in(page: Page, login: str, password: str) -> None:
    open_page(page, "/sign-in/")
    page.fill("[name=username]", login)
    page.fill("[name=password]", password)
    page.click("#login-form button[type=submit]")
    page.wait_for_selector(".side")


def sign_out(page: Page) -> None:
    page.evaluate("document.querySelector(\"form[action='/sign-out/']\").submit()")
    page.wait_for_url("**/sign-in/")


def send(page: Page, **fields: str) -> None:
    """Fill the page's form in, and send it by its one main button."""
    for name, value in fields.items():
        page.fill(f"main [name={name}]", value)
    page.click(MAIN)
    page.wait_for_load_state()
    assert page.locator(".fault").count() == 0, page.inner_text("main")


def test_an_owner_adds_and_stops_and_the_person_does_the_rest(page, posthouse):
    posthouse.manage(
        "account", "create", OWNER, "--tenant", "Demo", "--role", "owner", "--password-stdin",
        typed=OWNER_PASSWORD + "\n",
    )
    # The owner: a domain that is still to be proved, a mailbox, a password for its program, an alias.
    sign_in(page, OWNER, OWNER_PASSWORD)
    picture(page, "console-home")
    page.click(".side >> text=Domains")
    page.click(MAIN)
    send(page, name="acme.example")
    assert "acme.example" in page.inner_text("h1")
    picture(page, "console-domain")
    page.click(".side >> text=Mailboxes")
    picture(page, "console-mailboxes")
    page.click(MAIN)
    page.check("main [name=way][value=typed]")
    picture(page, "console-add-mailbox")
    send(page, address=ANN, name="Ann", password=FIRST_PASSWORD)
    page.click(".side >> text=Mailboxes")
    page.click(f"main >> text={ANN}")
    at_ann = page.url
    picture(page, "console-mailbox")
    page.click("text=New app password")
    send(page, label="web shop")
    secret = re.search(r"\bph-?[\w-]{20,}", page.inner_text("main"))
    assert secret, "shown once"
    picture(page, "console-secret")
    page.goto(at_ann)
    assert secret[0] not in page.content()
    page.click(".side >> text=Aliases")
    picture(page, "console-aliases")
    page.click(MAIN)
    send(page, address="info@demo.test", targets=ANN, description="What the shop's page names")

    # What arrives and what is sent stands in the log.
    def sends() -> bool:
        with posthouse.client() as client:
            client.login(ANN, secret[0])
            client.sendmail(ANN, ["info@demo.test"], "From: ann@demo.test\r\nSubject: Invoice 4711\r\n\r\nHello.\r\n")
        return True

    until(sends, what="the new mailbox")
    posthouse.inbox(ANN).wait()
    page.click(".side >> text=Messages")
    page.fill("main [name=q]", "to:info@demo.test status:delivered")
    page.keyboard.press("Enter")
    page.wait_for_load_state()
    picture(page, "console-messages")
    page.click("main >> text=info@demo.test")
    page.wait_for_selector("h1:has-text('Invoice 4711')")
    picture(page, "console-message")
    page.click(".side >> text=Usage")
    picture(page, "console-usage")
    page.click(".side >> text=Audit log")
    assert "acme.example" in page.inner_text("main")
    page.click(".side >> text=People")
    picture(page, "console-people")
    sign_out(page)

    # The person: another password, an answer while away, and the letter to read.
    sign_in(page, ANN, FIRST_PASSWORD)
    picture(page, "console-me")
    page.goto("/me/password/")
    send(page, **{name: NEW_PASSWORD if name != "old" else FIRST_PASSWORD for name in names(page)})
    page.goto("/me/rules/")
    page.check("main [name=vacation]")
    send(page, vacation_text="I am away until Monday.")
    picture(page, "console-rules")
    for where in ("mail", "passwords", "sent", "sign-ins", "settings"):
        assert page.goto(f"/me/{where}/").ok, where
        picture(page, f"console-me-{where}")
    page.goto("/me/mail/")
    page.click("main >> text=Invoice 4711")
    page.wait_for_selector("text=Hello.")
    sign_out(page)
    sign_in(page, ANN, NEW_PASSWORD)
    sign_out(page)

    # And the owner again: stopped, with a reason that the person's program is told.
    sign_in(page, OWNER, OWNER_PASSWORD)
    page.goto(at_ann)
    page.click("main >> text=Suspend")
    page.check("main [name=what] >> nth=0")
    send(page, reason="left the company")
    assert "left the company" in page.inner_text("main")
    with posthouse.client("shop@demo.test", PASSWORD) as client:
        assert client.noop()[0] == 250


def names(page: Page) -> list[str]:
    """The password fields of the page's form."""
    found: list[str] = page.eval_on_selector_all("main input[type=password]", "each => each.map(one => one.name)")
    return found
