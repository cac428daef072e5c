"""`python -m tests.support.pictures FOLDER`: every page of the console and the admin, to look at.

A PNG of each page: wide and narrow, light and dark, in each language; and index.html, which shows them side by
side. `--axe` says besides what axe finds in each of them, and fails if it finds anything. `--only home` keeps to
the pages whose name begins so. Needs Debian's chromium; starts no server, and leaves nothing else behind.
"""

import argparse
import html
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.shown import Viewer

LANGUAGES = ("en", "ja")
DRAWN_MS = 60  # until its icons are there as well


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.pictures", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--axe", action="store_true", help="say what axe finds in each")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="pages whose name begins so")
    parser.add_argument("--languages", nargs="+", default=LANGUAGES, choices=LANGUAGES)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="ph-"))
    try:
        return _run(asked, data)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _run(asked: argparse.Namespace, data: Path) -> int:
    _begin(data)
    from tests.support import ordinary_day, shown
    from tests.support.console import House
    from tests.support.rare_pages import rare_pages

    house = House()
    ordinary_day.furnish(house, data)
    pages = {
        language: [
            each for some in (shown.console_pages, rare_pages, shown.admin_pages) for each in some(house, language)
            if each.name.startswith(tuple(asked.only))
        ]
        for language in asked.languages
    }
    wrong = 0
    for language, some in pages.items():
        with shown.viewer(some) as viewer:
            for each in some:
                for size in (shown.WIDE, shown.NARROW):
                    for dark in (False, True):
                        viewer.show(each, size=size, dark=dark)
                        if not dark:
                            viewer.page.wait_for_timeout(DRAWN_MS)
                        name = picture(each.name, language, size[0], dark)
                        viewer.page.screenshot(path=asked.folder / name, full_page=True)
                        if asked.axe:
                            wrong += _tell(viewer, name.removesuffix(".png"), colours=dark)
    index = _index([each.name for each in next(iter(pages.values()))], asked.languages)
    (asked.folder / "index.html").write_text(index, encoding="utf-8")
    print(f"{sum(map(len, pages.values()))} pages in {asked.folder}" + (f", {wrong} faults" if asked.axe else ""))
    return min(wrong, 1)


def _begin(data: Path) -> None:
    """Django, on an empty database in `data`."""
    if sys.modules.get("django.conf") and os.environ.get("DJANGO_SETTINGS_MODULE"):
        sys.exit("Start it by itself: it needs settings of its own.")
    for name in [name for name in os.environ if name.startswith("POSTHOUSE_")]:
        del os.environ[name]
    os.environ.pop("DATABASE_URL", None)
    os.environ.update(
        POSTHOUSE_DATA=str(data), POSTHOUSE_HOSTNAME="mx.posthouse.test", DJANGO_SETTINGS_MODULE="panel.settings"
    )
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.test.utils import setup_test_environment

    django.setup()
    setup_test_environment()
    settings.WHITENOISE_AUTOREFRESH = True  # as in conftest.py
    call_command("migrate", verbosity=0)


def picture(name: str, language: str, width: int, dark: bool) -> str:
    return f"{name}-{language}-{width}-{'dark' if dark else 'light'}.png"


def _tell(viewer: "Viewer", where: str, *, colours: bool) -> int:
    """Print what is wrong with the page as it stands, or with its colours alone; how much it is."""
    found = viewer.faults(colours=colours)
    for each in found:
        print(f"{where}: {each}")
    return len(found)


def _index(names: Sequence[str], languages: Sequence[str]) -> str:
    rows = []
    for name in names:
        cells = "".join(
            f'<a href="{file}"><img src="{file}" loading="lazy" alt="{file}"></a>'
            for language in languages for width in (1400, 390) for dark in (False, True)
            for file in [html.escape(picture(name, language, width, dark))]
        )
        rows.append(f'<h2 id="{name}">{name}</h2>\n<p class="pictures">{cells}</p>')
    links = " · ".join(f'<a href="#{name}">{name}</a>' for name in names)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Pages of Posthouse</title><style>'
        "body { font: 14px sans-serif; margin: 1rem } .pictures { display: flex; gap: 8px; overflow: auto } "
        "img { height: 420px; max-width: 640px; object-fit: cover; object-position: top; border: 1px solid #ccc }"
        f"</style><h1>Pages of Posthouse</h1><p>{links}</p>\n" + "\n".join(rows) + "\n</html>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
