"""The console by keyboard and screen reader: axe finds nothing, no page has to be scrolled sideways, focus is led.

Each template once, narrow and wide, light and dark in turn, every fifth in Japanese: whatever a page is made of
stands on many. `python -m tests.support.pictures --axe` looks at all of them in everything.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.conf import settings

from tests.support import hostile_day, ordinary_day, shown
from tests.support.console import House
from tests.support.shown import Viewer
from tests.support.standing import undone

pytestmark = [pytest.mark.django_db, pytest.mark.browser, pytest.mark.once("sqlite")]

# Forms that are refused are all made alike: by fields in a row, with groups of choices, with a closed section.
REFUSED = ("sign-in-refused", "add-mailbox-refused", "suspend-mailbox-refused", "add-app-password-refused")
# What only a text that broke out would make: no page of ours has it.
BROKEN_OUT = """() => [...document.querySelectorAll(
    '[onerror], [onload], [onfocus], [style], [src="x"], style, base, object, embed, body script:not([src])'
)].map(each => each.outerHTML.slice(0, 200))"""
UNSEEN = set("\x00\x1b\x9b\u202e\u2066\u2028")
# The provider's, what no page tells, and what is too short for its mark: whoever shows one takes it out of here.
NOT_SHOWN = {
    "Attempt.outcome", "BulkAct.actor_name", "BulkAct.reason", "BulkAct.which", "DirectoryChange.domain",
    "LoginEvent.login", "Message.body", "Message.client_name", "Message.envid", "Message.ret", "Node.version",
    "OutboundRoute.host", "Recipient.lease_by", "Recipient.next_hop", "Recipient.notify", "Recipient.orcpt",
    "Recipient.resolved", "Tenant.notes", "VacationAnswer.sender",
}
# 320 pixels: a phone, or a window of 1280 at 400 %.
SMALLEST = (320, 640)


@pytest.fixture
def _django_db_helper() -> None:
    """Nothing in place of pytest-django's: the pages are there, and beside a browser Django asks no database."""


@pytest.fixture(scope="module")
def pages(house: House) -> list[shown.Shown]:
    with undone():
        ordinary_day.furnish(house, settings.ENVIRONMENT.data)
        found = list(shown.console_pages(house, *["en"] * 4, "ja"))
    # Of those of one template, as all that ask before an act, the first.
    once = {each.template: each for each in reversed(found) if not each.name.endswith("-refused")}
    return [each for each in found if each is once.get(each.template) or each.name in REFUSED]


@pytest.fixture(scope="module")
def hostile(house: House, pages: list[shown.Shown]) -> list[shown.Shown]:
    """The same pages, with the texts of those who write what they shouldn't."""
    with undone():
        hostile_day.furnish(house, settings.ENVIRONMENT.data)
        found = list(shown.console_pages(house, "en", only={each.name for each in pages}))
    return [replace(each, address=f"{each.address}?hostile") for each in found]


@pytest.fixture(scope="module")
def viewer(pages: list[shown.Shown], hostile: list[shown.Shown]) -> Iterator[Viewer]:
    with shown.viewer([*pages, *hostile]) as opened:
        yield opened


def test_axe_finds_nothing_and_nothing_is_wider_than_the_page(viewer, pages):
    faults = {}
    for at, page in enumerate(pages):
        dark = at % 2 == 1
        viewer.show(page, size=SMALLEST, dark=dark)
        found = viewer.sideways()
        if at % 4 > 1:
            viewer.show(page, size=shown.WIDE, dark=dark)
        if found := found + viewer.faults():
            faults[page.name] = found
    assert not faults


def test_what_others_write_breaks_out_of_no_page(viewer, hostile):
    """Nothing runs, nothing stands beside what we wrote, no word pushes the page aside; and each text is looked at."""
    faults = {}
    for page in hostile:
        viewer.show(page, size=SMALLEST)
        found = viewer.page.evaluate(BROKEN_OUT) + viewer.sideways() + viewer.errors
        viewer.errors.clear()
        if UNSEEN & set(page.body.decode()):
            found.append("a character that turns the text's direction, or steers a terminal")
        if found:
            faults[page.name] = found
    assert not faults
    written = "".join(page.body.decode() for page in hostile).replace("<wbr>", "").lower()
    unseen = {
        f"{model.__name__}.{each.name}" for model, each in hostile_day.columns()
        if hostile_day.mark(model, each.name).lower() not in written
    }
    assert unseen == NOT_SHOWN


def test_the_keyboard_reaches_everything_and_is_led_where_it_matters(viewer):
    page = viewer.open("home")

    def focused(what: str) -> bool:
        return page.evaluate("what => document.activeElement.matches(what)", what)

    page.keyboard.press("Tab")
    assert focused(".skip") and page.locator(".skip").bounding_box()["width"] > 40, "first of all the skip link"
    page.keyboard.press("Enter")
    assert focused("#main")
    # Each stop shows where one is, and none is behind something else.
    for _ in range(12):
        page.keyboard.press("Tab")
        seen = page.evaluate("""() => {
            const at = document.activeElement, place = at.getBoundingClientRect();
            return [getComputedStyle(at).outlineStyle, place.width * place.height > 0, at.outerHTML.slice(0, 200)];
        }""")
        assert seen[:2] == ["solid", True], seen
    page.keyboard.press("/")
    assert not focused(".find input"), "a key alone would do something under speech input"
    page.keyboard.press("Control+k")
    assert focused(".find input")
    # A menu: opened and closed by its button's keys, and back on it.
    button = "button[popovertarget=account]"
    page.focus(button)
    page.keyboard.press("Enter")
    assert page.locator("#account").is_visible()
    page.keyboard.press("Tab")
    assert focused("#account *")
    page.keyboard.press("Escape")
    assert not page.locator("#account").is_visible() and focused(button)

    page = viewer.open("home", size=shown.NARROW)
    assert not page.locator("#side").is_visible()
    page.focus("button[popovertarget=side]")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused("#side *")
    page.keyboard.press("Escape")
    assert not page.locator("#side").is_visible() and focused("button[popovertarget=side]")

    # What comes anew takes nobody's place away, and leaves open what was opened.
    page = viewer.open("domain")
    page.focus("#records .acts a >> nth=0")
    page.evaluate("""async () => {
        document.getElementById('records-more').open = true;
        document.querySelector('#records').classList.add('old');
        await htmx.ajax('GET', location.href, {source: '#main', target: '#main', select: '#main', swap: 'outerHTML'});
    }""")
    page.wait_for_function("document.activeElement.matches('#records:not(.old) .acts a:first-child')")
    assert page.locator("#records-more[open]").count() == 1

    page = viewer.open("add-mailbox-refused")
    assert focused("[role=alert]") and page.title().startswith(("Error:", "エラー：")), "some pages are in Japanese"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert focused("[aria-invalid=true]"), "the summary leads to the field"
