"""An administrator in a real browser: a lost password; from the first sign-in to a suspension and back."""

import re
import smtplib
import time

import pytest
from playwright.sync_api import Page

from tests.support.authenticator import code_of
from tests.support.browser import ADMIN, ADMIN_PASSWORD, open_page, picture
from tests.support.installation import until

pytestmark = [pytest.mark.browser, pytest.mark.once("postgresql")]

NEW_PASSWORD = "another unusual one"
MAILBOX_PASSWORD = "right horse battery"


def save(page: Page, name: str) -> None:
    """Press the button that saves, and see that the page took it."""
    page.click("[name=_save]")
    page.wait_for_load_state()
    assert page.locator(".errornote").count() == 0, name
    picture(page, name)


def choose(page: Page, field: str, text: str) -> None:
    """Choose in a field with completion."""
    page.click(f".field-{field} .select2-selection")
    page.keyboard.type(text)
    page.click(f".select2-results__option:has-text('{text}')")


def sign_in(page: Page, password: str = ADMIN_PASSWORD) -> None:
    page.fill("input[name=username]", ADMIN)
    page.fill("input[name=password]", password)
    page.click("#login-form button[type=submit]")


def test_a_forgotten_password_is_set_by_the_link_and_a_second_factor_is_asked_for(page, posthouse):
    open_page(page, "/admin/login/")
    page.click("text=Forgot your password?")
    page.fill("[name=email]", ADMIN)
    page.click("#login-form button[type=submit]")
    page.wait_for_selector("text=a link is on its way to it")
    ((letter,),) = posthouse.query("SELECT body FROM sending_content")
    page.goto(re.search(r"http://\S+", bytes(letter).decode())[0])
    for field in ("new", "again"):
        page.fill(f"[name={field}]", NEW_PASSWORD)
    page.click("#login-form button[type=submit]")
    page.wait_for_url("**/admin/login/")
    sign_in(page, NEW_PASSWORD)
    page.wait_for_url("**/admin/")

    page.goto("/admin/account/second-factor/")
    secret = page.inner_text(".ph-secret").replace(" ", "")
    page.fill("[name=code]", code_of(secret))
    page.fill("[name=password]", NEW_PASSWORD)
    page.click("button:has-text('Set up')")
    assert page.locator(".ph-codes li").count() == 10
    picture(page, "recovery-codes")
    page.click("a:has-text('I have kept them')")
    page.click("button:has-text('Sign out everywhere')")
    page.wait_for_url("**/admin/login/")
    sign_in(page, NEW_PASSWORD)
    page.wait_for_url("**/admin/login/code/**")
    page.fill("[name=code]", code_of(secret, steps=1))  # that of these 30 seconds is used
    page.click("#login-form button[type=submit]")
    page.wait_for_url("**/admin/")


def set_up_second_factor(page: Page) -> None:
    """On the page that everything else leads to until there is one."""
    page.wait_for_url("**/admin/account/second-factor/")
    picture(page, "second-factor")
    page.fill("[name=code]", code_of(page.inner_text(".ph-secret").replace(" ", "")))
    page.fill("[name=password]", ADMIN_PASSWORD)
    page.click("button:has-text('Set up')")
    page.click("a:has-text('I have kept them')")


def act(page: Page, button: str, name: str, reason: str = "") -> None:
    """An act of an object's page, confirmed on the page that says what it does."""
    page.click(f"a:has-text('{button}')")
    if reason:
        page.fill("[name=reason]", reason)
    picture(page, name)
    page.click(f"#content button:has-text('{button}')")
    page.wait_for_url("**/change/")


def test_from_the_first_sign_in_to_a_suspension_and_back(page, posthouse):
    posthouse.manage("account", "second-factor", ADMIN, "--require")
    open_page(page, "/admin/")
    sign_in(page)
    set_up_second_factor(page)
    page.goto("/admin/")
    picture(page, "index")

    page.goto("/admin/tenants/tenant/add/")
    page.fill("[name=name]", "Acme")
    page.select_option("[name=plan]", label="Standard")
    save(page, "tenants")
    page.click("#result_list a:has-text('Acme')")
    picture(page, "tenant")

    page.goto("/admin/domains/domain/add/")
    page.fill("[name=name]", "acme.example")
    choose(page, "tenant", "Acme")
    page.check("[name=verified]")
    save(page, "domains")
    page.click("#result_list a:has-text('acme.example')")
    picture(page, "domain")

    page.goto("/admin/mailboxes/mailbox/add/")
    page.fill("[name=full_address]", "nobody@elsewhere.example")
    page.fill("[name=password]", MAILBOX_PASSWORD)
    page.click("[name=_save]")
    assert "elsewhere.example" in page.locator(".errors").inner_text()
    picture(page, "mailbox-refused")
    page.fill("[name=full_address]", "ann@acme.example")
    page.fill("[name=password]", MAILBOX_PASSWORD)
    save(page, "mailboxes")

    page.goto("/admin/sending/sendinglimit/add/")
    choose(page, "mailbox", "ann")
    page.select_option("[name=window]", value="hour")
    page.fill("[name=recipients]", "1")
    save(page, "limits")

    def sends() -> bool:
        try:
            posthouse.send("ann@acme.example", "office@demo.test", subject="From Acme", password=MAILBOX_PASSWORD)
        except smtplib.SMTPException:
            return False
        return True

    until(sends, within_s=30, what="the new mailbox")
    posthouse.inbox("office@demo.test").wait()
    with posthouse.client("ann@acme.example", MAILBOX_PASSWORD) as client:
        client.mail("ann@acme.example")
        client.rcpt("office@demo.test")
        code, text = client.data(b"From: ann@acme.example\r\n\r\none too many\r\n")
        assert code == 450 and b"limit of 1 recipients in 1 hour" in text, (code, text)

    page.goto("/admin/sending/message/")
    page.click("#result_list a")
    assert "From Acme" in page.inner_text("#content")
    picture(page, "message")

    with posthouse.client("ann@acme.example", MAILBOX_PASSWORD) as client:
        assert client.mail("ann@acme.example")[0] == 250
        client.rset()
        page.goto("/admin/mailboxes/mailbox/?q=ann")
        page.click("#result_list a:has-text('ann@acme.example')")
        picture(page, "mailbox")
        act(page, "Suspend", "suspend", reason="found in a leak")
        suspended_at = time.monotonic()

        def refused() -> bool:
            code, text = client.mail("ann@acme.example")
            client.rset()
            return code == 550 and b"suspended" in text

        until(refused, within_s=30, what="the refusal")
        print(f"refused {time.monotonic() - suspended_at:.2f} s after the page came back")
        assert "found in a leak" in page.inner_text("#content")
        picture(page, "suspended")
        suspended = page.url

        page.goto("/admin/tenants/auditentry/?q=ann%40acme.example")
        assert "mailbox suspended" in page.inner_text("#result_list")
        picture(page, "audit")
        page.click("#result_list a[href*='/auditentry/']:has-text('ago'), #result_list a:has-text('just now')")
        page.wait_for_url("**/change/**")
        assert "found in a leak" in page.inner_text("#content")
        picture(page, "audit-entry")

        page.goto(suspended)
        act(page, "Resume", "resume")
        assert page.locator("#content .ph-state").first.inner_text() == "active"
        until(lambda: not refused(), within_s=30, what="sending again")
        picture(page, "resumed")
