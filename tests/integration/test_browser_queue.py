"""Acts on many recipients in a real browser: carried on by the page's script, and without it by its button."""

from collections.abc import Iterator

import pytest
from django.test import Client
from playwright.sync_api import Browser, Page, sync_playwright

from panel.operations import services as operations
from panel.sending import bulk
from tests.support import queue, world
from tests.support.browser import ARGUMENTS, picture

pytestmark = [pytest.mark.browser, pytest.mark.once("sqlite"), pytest.mark.django_db(transaction=True)]

QUEUE = "/admin/sending/recipient/queue/"


@pytest.fixture
def session(transactional_db, monkeypatch) -> str:
    """Seven recipients wait for a host; the session of an operator, who does three in a step."""
    monkeypatch.setattr(bulk, "STEP", 3)
    tenant = world.tenant("Demo")
    for n in range(7):
        queue.waiting(tenant, f"a{n}@slow.test", tries=1, last_reply="451 4.7.1 Greylisted")
    client = Client()
    client.force_login(operations.create_account(
        email="operator@provider.test", password="an unusual password", provider_role="operator", actor=None
    ))
    return client.cookies["sessionid"].value


@pytest.fixture
def browser(session, live_server) -> Iterator[Browser]:
    """Started when all rows are made: its event loop lives in this thread, where Django then refuses to ask."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield opened
        opened.close()


def open_queue(browser: Browser, server: str, session: str, errors: list[str]) -> Page:
    context = browser.new_context(base_url=server, viewport={"width": 1400, "height": 900})
    context.add_cookies([{"name": "sessionid", "value": session, "url": server}])
    page = context.new_page()
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(QUEUE)
    return page


def test_what_waits_is_given_up_while_the_page_is_open(browser, live_server, session):
    errors: list[str] = []
    page = open_queue(browser, live_server.url, session, errors)
    assert page.locator(".ph-hops tbody tr").count() == 1
    assert page.locator(".ph-reply .ph-copy").count() == 1
    picture(page, "queue")
    page.click("a:has-text('Give up')")
    assert "Give up 7 waiting recipients to slow.test" in page.inner_text("#content")
    page.fill("[name=reason]", "the host is gone")
    page.click("button:has-text('Give up 7')")
    page.wait_for_selector("a:has-text('To the queue')")
    assert "7 of 7 looked at" in page.inner_text("#progress")
    picture(page, "bulk-act")
    page.click("a:has-text('To the queue')")
    assert "Nothing waits." in page.inner_text("#content")
    assert errors == []


def test_without_its_script_each_step_is_a_press_of_the_button(browser, live_server, session):
    page = open_queue(browser, live_server.url, session, [])
    page.route("**/carry_on.js", lambda route: route.abort())
    page.click("a:has-text('Try all now')")
    page.click("button:has-text('Try 7 now')")
    for said in ("0 of 7", "3 of 7", "6 of 7"):
        assert said in page.inner_text("#progress")
        page.click("button:has-text('Go on')")
    assert "7 of 7 looked at" in page.inner_text("#progress")


def test_it_says_when_the_panel_no_longer_answers(browser, live_server, session):
    page = open_queue(browser, live_server.url, session, [])
    page.clock.install()
    page.route("**/go-on/", lambda route: route.abort())
    page.click("a:has-text('Try all now')")
    page.click("button:has-text('Try 7 now')")
    told = page.locator("text=The panel doesn't answer")
    for _ in range(8):
        page.clock.run_for(3000)
        page.wait_for_timeout(50)
    told.wait_for(state="visible")
    assert "as long as this page is open" not in page.inner_text("#progress")
    page.unroute("**/go-on/")
    page.click("button:has-text('Go on')")
    page.wait_for_selector("text=7 of 7 looked at")
