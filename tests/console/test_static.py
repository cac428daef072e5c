"""What browsers are sent beside the pages: names, sizes, what is compressed."""

import gzip
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

pytestmark = pytest.mark.once("sqlite")

FOLDER = Path(settings.BASE_DIR) / "panel" / "static" / "console"
OURS = FOLDER / "console.css"
ADMINS = FOLDER.parent / "posthouse" / "admin.css"
COLOURS = FOLDER.parent / "posthouse" / "colours.css"
TABLER = next((FOLDER / "vendor").glob("tabler-*/tabler.min.css"))
# Tabler's own, which ours dress on purpose.
SHARED = {
    "btn", "btn-link", "btn-sm", "card", "form-check-input", "form-control", "form-label", "form-select",
    "input-group-text", "small",
}
MOST_FIRST_PAGE = 300 * 1024
TEMPLATES = sorted((Path(settings.BASE_DIR) / "panel" / "templates" / "console").rglob("*.html"))


def classes(css: str) -> set[str]:
    css = re.sub(r'/\*.*?\*/|url\([^)]*\)|"[^"]*"', "", css, flags=re.S)
    return set(re.findall(r"\.([A-Za-z][\w-]*)", css))


def test_our_names_are_not_tablers_but_those_that_we_dress():
    assert classes(OURS.read_text()) & classes(TABLER.read_text()) == SHARED


def luminance(colour: str) -> float:
    """Of "#rrggbb", from 0 to 1: WCAG 2.2, "relative luminance"."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted(map(luminance, (one, other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_colours_stand_out_from_what_they_stand_on_light_and_dark():
    """WCAG 2.2 AA: text 4.5 to 1, edges of fields and bars of charts 3 to 1; what the mouse is over as well."""
    text, papers = ("ink", "dim", "accent"), ("page", "paper", "well")
    softs = {"accent": "accent-soft", "good": "good-soft", "warn": "warn-soft", "bad": "bad-soft"}
    asked = [(each, on, 4.5) for each in (*text, *softs) for on in papers]
    asked += [(each, soft, 4.5) for state, soft in softs.items() for each in (*text, state)]
    asked += [(each, on, 3) for each in ("line-firm", "accent") for on in papers]
    asked += [(each, "paper", 3) for each in ("bar", "bar-near", "bar-over", "out")]
    asked += [(each, "line", 3) for each in ("accent", "bar-near", "bar-over", "warn", "bad")]  # meters
    asked += [("white", each, 4.5) for each in ("accent-fill", "primary-darken", "danger", "danger-darken")]
    declared = re.findall(
        r"--(?:ph|tblr)-([\w-]+): light-dark\((#\w{6}), (#\w{6})\)",
        "".join(each.read_text() for each in (COLOURS, OURS, ADMINS)),
    )
    for theme in (0, 1):
        colours = {"white": "#ffffff", **{name: pair[theme] for name, *pair in declared}}
        faint = {
            (each, on, round(found, 2)) for each, on, least in asked
            if (found := contrast(colours[each], colours[on])) < least
        }
        assert not faint, ("light", "dark")[theme]


def test_what_is_compressed_is_the_file_beside_it():
    found = sorted(FOLDER.rglob("*.gz"))
    assert len(found) == 2
    for each in found:
        assert gzip.decompress(each.read_bytes()) == each.with_suffix("").read_bytes(), each


@pytest.mark.django_db
def test_the_first_page_is_small_and_what_others_made_is_kept_for_good():
    client = Client(headers={"Accept-Encoding": "gzip"})
    page = client.get("/sign-in/")
    urls = set(re.findall(r'(?:href|src)="(/static/[^"#]+)', page.content.decode()))
    urls |= {f"/static/console/{each}" for each in re.findall(r"url\((vendor/[^)]+)\)", OURS.read_text())
             if "latin-ext" not in each}
    urls.add("/static/console/icons.svg")
    total = len(page.content)
    for url in urls:
        answer = client.get(url)
        assert answer.status_code == 200, url
        total += len(b"".join(answer.streaming_content))
        assert ("immutable" in answer["Cache-Control"]) == ("/vendor/" in url), url
    assert len(urls) >= 7
    assert total <= MOST_FIRST_PAGE, total


def test_no_template_holds_what_the_policy_forbids():
    """No inline script or style, no handler, nothing that htmx would evaluate, nothing from elsewhere."""
    forbidden = re.compile(
        r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son(?!e=)[a-z]+=|hx-on|javascript:|https?://|\bjs:", re.I
    )
    # The frame of a letter has a policy of its own, which knows no script and no server.
    ours = [each for each in TEMPLATES if each.name != "me_letter_frame.html"]
    wrong = {each.name: found for each in ours if (found := forbidden.findall(each.read_text()))}
    assert len(TEMPLATES) > 20
    assert not wrong


def test_every_table_is_named():
    tables = [(each.name, tag) for each in TEMPLATES for tag in re.findall(r"<table[^>]*>", each.read_text())]
    assert len(tables) > 15
    assert not [each for each in tables if not re.search(r"\saria-label(ledby)?=", each[1])]


def test_every_drawing_that_is_named_is_there():
    drawn = set(re.findall(r'<symbol id="([^"]+)"', (FOLDER / "icons.svg").read_text()))
    named = {
        name for each in TEMPLATES
        for name in re.findall(r'{% icon "([^"]+)"|drawing="([^"]+)"', each.read_text()) for name in name if name
    }
    from panel.console import frame

    for some in (frame.OF_A_TENANT, frame.OF_AN_ORGANISATION, frame.OF_A_PERSON):
        named |= {icon for _, _, icon in some}
    assert named <= drawn
