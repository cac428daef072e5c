"""Pages as they are answered, shown to a browser without a server: pictures of them, and what axe finds in them.

All of the console's by their addresses, with the form again where a change without any field is refused, and
of the admin's the start, the lists, a row of each and what is added.
"""

import mimetypes
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import axe_playwright_python
from django.contrib import admin
from django.contrib.staticfiles import finders
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import reverse
from django.views.i18n import JavaScriptCatalog
from playwright.sync_api import Page, Route, sync_playwright

from panel.console.middleware import STRICT
from tests.console.addresses import ALL
from tests.console.expected import EXPECTED, PAGE, OfAnybody, OfAPerson
from tests.support.browser import ARGUMENTS
from tests.support.console import House
from tests.support.standing import undone

ORIGIN = "https://panel.test"  # elsewhere no browser has passkeys
WIDE, NARROW = (1400, 900), (390, 844)
# What is unfold's own in the admin's pages and can't be mended from outside: parts that are let be, by rule.
UNFOLDS = {
    "target-size": ("id=\"searchbar-submit\"", "sortremove", "toggle ascending", "toggle descending"),  # 18 pixels high
    # A read-only field that leads to its row: in a sentence only where ours beside it is one.
    "region": ("openTheme",),  # on the page of the sign-in
    "landmark-unique": ("simplebar-content-wrapper",),  # its scroll bars', all of one name
    "link-in-text-block": ("class=\"text-primary-600 dark:text-primary-500\"",),
}
OF_PASSKEYS = b"posthouse/passkeys.js"  # a script that is read with the page
SENT = {"csrfmiddlewaretoken": "x"}  # a form in which nothing was filled
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
OF_COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}


@dataclass(frozen=True)
class Shown:
    """A page: `address` is where the browser finds it."""

    name: str
    address: str
    body: bytes
    policy: str
    template: str


def console_pages(house: House, *languages: str, only: Collection[str] = ()) -> Iterator[Shown]:
    """Every address that answers with a page, each to who it is for, in these languages in turn.

    `only`: what of them is looked at, by the addresses' names.
    """
    turn = cycle(languages)
    for one in ALL:
        if only and one.name not in only:
            continue
        language = next(turn)
        expected = EXPECTED[one.name]
        role = {OfAPerson: "person", OfAnybody: "anonymous"}.get(type(expected), "owner")
        path = one.path(house)
        to_get, to_post = expected.of(role)
        if to_get == PAGE or one.name == "me-letter":  # of an inbox that isn't empty
            yield from _answered(house, role, one.name, path, language)
        if to_post == PAGE and not only:
            yield from _answered(house, role, f"{one.name}-refused", path, language, posted=True)
    if only:
        return
    acme = {"tenant": house.acme.pk}
    for name, asked in (("mailboxes", "nobody"), ("messages", "to:nobody@elsewhere.test"), ("search", "ann")):
        path = f"{reverse(f'console:{name}', kwargs=acme)}?q={asked}"
        yield from _answered(house, "owner", f"{name}-searched", path, language)
    yield from _answered(house, "owner", "not-found", "/t/1/", language)
    yield from _answered(house, "viewer", "forbidden", reverse("console:add-member", kwargs=acme), language)


def admin_pages(house: House, language: str) -> Iterator[Shown]:
    """What the provider's operator sees."""
    role = "operator"
    for name in ("admin:index", "admin:sending_queue", "search", "account:own", "account:password"):
        yield from _answered(house, role, f"admin-{name.partition(':')[2] or name}", reverse(name), language)
    yield from _answered(house, "anonymous", "admin-sign-in", reverse("admin:login"), language)
    for model in sorted(admin.site._registry, key=lambda model: model._meta.label):
        start = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        name = f"admin-{model._meta.model_name}"
        yield from _answered(house, role, f"{name}-list", reverse(f"{start}_changelist"), language)
        yield from _answered(house, role, f"{name}-add", reverse(f"{start}_add"), language)
        row = model._default_manager.order_by("pk").first()
        if row is not None:
            yield from _answered(house, role, name, reverse(f"{start}_change", args=[row.pk]), language)


def _answered(
    house: House, role: str, name: str, path: str, language: str, *, posted: bool = False
) -> Iterator[Shown]:
    client = house.client(role)
    headers = {"accept-language": language}
    with undone():
        answer: HttpResponse = client.post(path, SENT, headers=headers) if posted else client.get(path, headers=headers)
    if answer.status_code in (200, 403, 404) and answer["Content-Type"].startswith("text/html"):
        if answer.status_code != 200 and name not in ("not-found", "forbidden"):
            return
        mark = f"{'&' if '?' in path else '?'}shown={name}" if posted else ""
        yield kept(name, path + mark, answer)


def kept(name: str, address: str, answer: Any) -> Shown:
    """A page that the tests' client was answered with, whatever its status is."""
    assert answer["Content-Type"].startswith("text/html"), name
    template = str(answer.templates[0].name) if getattr(answer, "templates", None) else ""
    return Shown(name, address, answer.content, answer.get("Content-Security-Policy", STRICT), template)


class Viewer:
    """A browser that has these pages and what they are drawn with, and nothing else."""

    def __init__(self, page: Page, pages: Iterable[Shown]) -> None:
        self.page = page
        self.errors: list[str] = []
        self._shown: Shown | None = None
        self._pages = {each.address: each for each in pages}
        page.route("**/*", self._serve)
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, name: str, *, size: tuple[int, int] = WIDE) -> Page:
        """Go to the page of this name, as by its address."""
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self._shown = next(each for each in self._pages.values() if each.name == name)
        self.page.goto(ORIGIN + self._shown.address)
        return self.page

    def show(self, shown: Shown, *, size: tuple[int, int] = WIDE, dark: bool = False) -> None:
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
        if shown != self._shown:
            self._go(shown)
        if shown.policy != STRICT:
            # Unfold asks what the system has only while a page is loaded.
            self.page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", dark)

    def _go(self, shown: Shown) -> None:
        is_alike = self._shown is not None and shown.policy == self._shown.policy == STRICT
        if not is_alike or OF_PASSKEYS in shown.body:
            self.page.goto(ORIGIN + shown.address)
        else:
            # The console's pages have the same head, which takes longer to read than all of a page.
            self.page.evaluate(IN_PLACE, shown.body.decode())
        self._shown = shown

    def faults(self, *, colours: bool = False) -> list[str]:
        """What is wrong with the page as it stands: what axe finds, its width, an error of the browser's.

        `colours`: of axe's rules those that another theme may break, where the others have been asked.
        """
        if self._shown is not None and "sandbox" in self._shown.policy:
            return self.sideways()  # others' HTML, of which nothing runs: nor would axe's timers
        # Evaluated from outside, so under the page's own policy.
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE)
        found: dict[str, Any] = self.page.evaluate(
            "rules => axe.run({runOnly: rules, resultTypes: ['violations'], preload: false})",
            OF_COLOURS if colours else RULES,
        )
        faults = [
            f"{rule['id']}: {node['html'][:200]} ({' '.join(node['failureSummary'].split())})"
            for rule in found["violations"] for node in rule["nodes"]
            if not any(mark in node["html"] for mark in UNFOLDS.get(rule["id"], ()))
        ]
        faults += self.sideways() + self.errors
        self.errors.clear()
        return faults

    def sideways(self) -> list[str]:
        """What makes the page wider than its window, if something does."""
        width, room = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        return [f"{width} pixels wide, where there are {room}"] if width > room else []

    def _serve(self, route: Route) -> None:
        address = route.request.url.removeprefix(ORIGIN)
        if route.request.method == "GET" and (shown := self._pages.get(address)):
            route.fulfill(body=shown.body, headers={
                "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": shown.policy,
            })
        elif address.startswith("/static/") and (found := finders.find(address.removeprefix("/static/"))):
            kind = mimetypes.guess_type(address)[0] or "application/octet-stream"
            route.fulfill(body=Path(found).read_bytes(), content_type=kind)
        elif address == reverse("admin:jsi18n"):
            route.fulfill(body=JavaScriptCatalog().get(RequestFactory().get(address)).content, content_type=SCRIPT)
        else:
            route.fulfill(status=204)  # what a page asks for by itself: htmx then lets it be


IN_PLACE = """text => {
    const page = new DOMParser().parseFromString(text, "text/html"), root = document.documentElement;
    for (const name of ["lang", "data-bs-theme"]) {
        if (page.documentElement.hasAttribute(name)) root.setAttribute(name, page.documentElement.getAttribute(name));
        else root.removeAttribute(name);
    }
    document.title = page.title;
    document.body.replaceWith(page.body);
    scrollTo(0, 0);
}"""
SCRIPT = "text/javascript; charset=utf-8"
AXE = (Path(axe_playwright_python.__path__[0]) / "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def viewer(pages: Iterable[Shown]) -> Iterator[Viewer]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield Viewer(browser.new_page(), pages)
        browser.close()
