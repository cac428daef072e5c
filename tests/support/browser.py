"""A real browser on a running installation: the panel's pages, and pictures of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.support.installation import ROOT, Installation, until

ADMIN, ADMIN_PASSWORD = "admin@localhost", "an unusual password"
SIZES = ((1400, 900), (390, 844))
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]

# The admin's way and the console's.
THEME = """light => {
    document.documentElement.classList.toggle('dark', light === 'dark');
    document.documentElement.dataset.bsTheme = light;
}"""


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
    yield posthouse.environment["POSTHOUSE_URL"]
    program.terminate()
    program.wait(timeout=30)


@pytest.fixture
def page(panel: str, tmp_path: Path) -> Iterator[Page]:
    """A page whose console holds no error at the end."""
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        width, height = SIZES[0]
        opened = browser.new_page(base_url=panel, viewport={"width": width, "height": height})
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


def picture(page: Page, name: str) -> None:
    """When PICTURES of the environment names a folder: the page there, wide and narrow, light and dark."""
    folder = os.environ.get("PICTURES")
    if not folder:
        return
    for light in ("light", "dark"):
        page.evaluate(THEME, light)
        for width, height in (SIZES[1], SIZES[0]):
            page.set_viewport_size({"width": width, "height": height})
            page.screenshot(path=f"{folder}/{name}-{width}-{light}.png", full_page=True)
    page.evaluate(THEME, "light")
