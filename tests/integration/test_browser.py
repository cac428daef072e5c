"""An administrator in a real browser: tenant, domain, mailbox; it sends, is suspended, and is refused."""

import os
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support.installation import ROOT, Installation, until

pytestmark = pytest.mark.browser

ADMIN, ADMIN_PASSWORD = "admin@localhost", "an unusual password"
MAILBOX_PASSWORD = "right horse battery"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]


@pytest.fixture
def panel(posthouse: Installation) -> Iterator[str]:
    """The panel's address, on the same installation as a running mailserver."""
    posthouse.manage("account", "create", ADMIN, "--provider", "owner", "--password-stdin", typed=ADMIN_PASSWORD + "\n")
    address = f"127.0.0.1:{posthouse.http}"
    command = [sys.executable, "-m", "gunicorn", "--bind", address, "--threads", "4", "--no-control-socket"]
    with posthouse.log.open("ab") as log:
        program = subprocess.Popen(
            [*command, "panel.wsgi"], cwd=ROOT, env=posthouse.environment, stdout=log, stderr=log
        )
    yield f"http://{address}"
    program.terminate()
    program.wait(timeout=30)


@pytest.fixture
def page(panel: str, tmp_path: Path) -> Iterator[Page]:
    """A page whose console holds no error at the end."""
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        opened = browser.new_page(base_url=panel, viewport={"width": 1400, "height": 900})
        opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        opened.on("pageerror", lambda error: errors.append(str(error)))
        yield opened
        browser.close()
    assert errors == []


def open_page(page: Page, path: str) -> None:
    until(lambda: answers(page, path), what="the panel")


def answers(page: Page, path: str) -> bool:
    try:
        response = page.goto(path)
    except Exception as error:
        assert "ERR_CONNECTION_REFUSED" in str(error)
        return False
    return response is not None and response.ok


def save(page: Page, name: str) -> None:
    """Press the button that saves, and see that the page took it."""
    page.click("[name=_save]")
    page.wait_for_load_state()
    assert page.locator(".errornote").count() == 0, name
    picture(page, name)


def picture(page: Page, name: str) -> None:
    """A screenshot, kept when PICTURES of the environment names a folder."""
    folder = os.environ.get("PICTURES")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")


def choose(page: Page, field: str, text: str) -> None:
    """Choose in a field with completion."""
    page.click(f".field-{field} .select2-selection")
    page.keyboard.type(text)
    page.click(f".select2-results__option:has-text('{text}')")


def test_from_tenant_to_suspension(page, posthouse):
    open_page(page, "/admin/")
    page.fill("input[name=username]", ADMIN)
    page.fill("input[name=password]", ADMIN_PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_url("**/admin/")
    picture(page, "index")

    page.goto("/admin/tenants/tenant/add/")
    page.fill("[name=name]", "Acme")
    page.select_option("[name=plan]", label="Standard")
    save(page, "tenant")

    page.goto("/admin/domains/domain/add/")
    page.fill("[name=name]", "acme.example")
    choose(page, "tenant", "Acme")
    page.check("[name=verified]")
    save(page, "domain")

    page.goto("/admin/mailboxes/mailbox/add/")
    page.fill("[name=full_address]", "nobody@elsewhere.example")
    page.fill("[name=password]", MAILBOX_PASSWORD)
    page.click("[name=_save]")
    assert "elsewhere.example" in page.locator(".errors").inner_text()
    picture(page, "refused")
    page.fill("[name=full_address]", "ann@acme.example")
    page.fill("[name=password]", MAILBOX_PASSWORD)
    save(page, "mailbox")

    def sends() -> bool:
        try:
            posthouse.send("ann@acme.example", "office@demo.test", subject="From Acme", password=MAILBOX_PASSWORD)
        except smtplib.SMTPException:
            return False
        return True

    until(sends, within_s=30, what="the new mailbox")
    posthouse.inbox("office@demo.test").wait()

    page.goto("/admin/sending/message/")
    page.click("#result_list a")
    assert "From Acme" in page.inner_text("#content")
    picture(page, "message")

    with posthouse.client("ann@acme.example", MAILBOX_PASSWORD) as client:
        assert client.mail("ann@acme.example")[0] == 250
        client.rset()
        page.goto("/admin/mailboxes/mailbox/?q=ann")
        page.click("#result_list a:has-text('ann@acme.example')")
        page.click("a:has-text('Suspend')")
        page.fill("[name=reason]", "found in a leak")
        picture(page, "suspend")
        page.click("button:has-text('Suspend')")
        page.wait_for_url("**/change/")
        suspended_at = time.monotonic()

        def refused() -> bool:
            code, text = client.mail("ann@acme.example")
            client.rset()
            return code == 550 and b"suspended" in text

        until(refused, within_s=30, what="the refusal")
        print(f"refused {time.monotonic() - suspended_at:.2f} s after the page came back")
    assert "found in a leak" in page.inner_text("#content")
    picture(page, "suspended")
    page.set_viewport_size({"width": 390, "height": 844})
    picture(page, "suspended-narrow")
