"""Measures the provider's pages, and a tenant's, at size: queries and server time of each, against what they may take.

    tests/bench/panel                               SQLite, in a file of its own
    tests/bench/panel --database postgresql         a PostgreSQL server of its own
    tests/bench/panel --database postgres://…       an empty database of yours, which keeps what is filled in
    tests/bench/panel --keep                        fill once …
    tests/bench/panel --reuse --database URL        … and measure often

A page is asked as an owner of the installation, once to warm up, once to count its queries, and then
to take its time: in the handler, so without the network and the browser.
"""

import argparse
import atexit
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MOST_QUERIES = 15
MOST_MS = {"postgresql": 60.0, "sqlite": 200.0}
TENANTS, MAILBOXES, MESSAGES = 1000, 100_000, 1_000_000


@dataclass(frozen=True, slots=True)
class Figures:
    page: str
    url: str
    status: int
    queries: int
    median_ms: float
    worst_ms: float
    python_ms: float  # of the median: this process's own share, which a busy machine doesn't lengthen
    misses: str  # what of the targets; empty: none


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/bench/panel", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", metavar="URL", default="sqlite",
                        help="sqlite, postgresql, or the URL of a database (default: sqlite)")
    parser.add_argument("--tenants", type=int, default=TENANTS, help=f"default: {TENANTS:,}")
    parser.add_argument("--mailboxes", type=int, default=MAILBOXES, help=f"default: {MAILBOXES:,}")
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"default: {MESSAGES:,}")
    parser.add_argument("--requests", type=int, default=9, help="timed requests a page (default: 9)")
    parser.add_argument("--only", metavar="WORDS", default="", help="pages whose name holds these words")
    parser.add_argument("--keep", action="store_true", help="leave the database, and say where it is")
    parser.add_argument("--reuse", action="store_true", help="measure the database as it is, without filling it")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    asked = options(arguments)
    if asked.reuse and asked.database in ("sqlite", "postgresql"):
        tell("--reuse needs the URL that --keep printed: --database URL.")
        return 2
    url, farewell = database(asked.database, keep=asked.keep)
    try:
        return run(asked, url)
    finally:
        tell(farewell)


def run(asked: argparse.Namespace, url: str) -> int:
    prepare(url)
    from tests.bench import console_pages, filling
    from tests.bench.pages import only, pages, without_repeats

    size = filling.Size(asked.tenants, asked.mailboxes, asked.messages)
    if not asked.reuse:
        if not filling.is_empty():
            tell("This database is filled already: measure it with --reuse, or name an empty one.")
            return 2
        began_s = time.monotonic()
        filling.fill(size, tell)
        tell(f"filled in {time.monotonic() - began_s:.0f} s")
    owner = an_owner()
    of_tenant, of_console = console_pages.of_largest()
    if not asked.reuse:
        filling.tidy()  # with the two accounts that ask
    staff, tenant = client_of(owner), client_of(of_tenant)
    found = [(staff, page) for page in without_repeats(only(pages(owner), asked.only))]
    found += [(tenant, page) for page in only(of_console, asked.only)]
    figures = []
    for number, (client, page) in enumerate(found, 1):
        figures.append(measure(client, page, asked.requests))
        if not asked.json:
            if number % 40 == 1:
                print(f"{'page':<70} {'queries':>8} {'median ms':>10} {'worst ms':>9} {'Python ms':>10}")
            one = figures[-1]
            print(f"{one.page:<70.70} {one.queries:>8} {one.median_ms:>10.1f} {one.worst_ms:>9.1f} "
                  f"{one.python_ms:>10.1f} {one.misses}", flush=True)
    missed = [one for one in figures if one.misses]
    if asked.json:
        print(json.dumps({"database": vendor(), **asdict(size), "pages": [asdict(one) for one in figures]}, indent=1))
    tell(f"{len(figures)} pages on {vendor()}, {len(missed)} of them miss a target "
         f"(at most {MOST_QUERIES} queries, a median of {MOST_MS[vendor()]:.0f} ms).")
    return 1 if missed else 0


def tell(text: str) -> None:
    if text:
        print(text, file=sys.stderr, flush=True)


def database(asked: str, *, keep: bool) -> tuple[str, str]:
    """The database's URL, and what is to be said in the end. What this program made it removes, unless it is kept."""
    if asked == "postgresql":
        from tests.support.postgres import Postgres

        cluster = Postgres()
        cluster.start()
        url = cluster.create("posthouse")
        if not keep or cluster.process is None:
            return url, ""
        atexit.unregister(cluster.discard)
        return url, f"kept: {url}; to remove it: kill -QUIT {cluster.process.pid} && rm -r {cluster.folder}"
    if asked != "sqlite":
        return asked, ""
    folder = Path(tempfile.mkdtemp(prefix="ph-bench-"))
    url = f"sqlite:///{folder / 'db.sqlite3'}"
    if keep:
        return url, f"kept: {url}; to remove it: rm -r {folder}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return url, ""


def prepare(url: str) -> None:
    """Django on this database, with a data folder of its own and none of this machine's settings."""
    for name in [name for name in os.environ if name.startswith("POSTHOUSE_")]:
        del os.environ[name]
    data = tempfile.mkdtemp(prefix="ph-bench-data-")
    atexit.register(shutil.rmtree, data, ignore_errors=True)
    os.environ.update(
        POSTHOUSE_DATA=data, POSTHOUSE_HOSTNAME="mx.provider.example", DATABASE_URL=url,
        DJANGO_SETTINGS_MODULE="panel.settings",
    )
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def vendor() -> str:
    from django.db import connection

    return connection.vendor


def an_owner() -> Any:
    """The account that asks: an owner of the installation's."""
    from django.db import transaction

    from panel.tenants.models import ProviderRole, User

    with transaction.atomic():
        return User.objects.get_or_create(
            email="bench@provider.example", defaults={"provider_role": ProviderRole.OWNER, "password": "!"}
        )[0]


def client_of(owner: Any) -> Any:
    """Django's test client, signed in, which notes how long the handler took."""
    from django.test import Client
    from django.test.client import ClientHandler

    class Timed(ClientHandler):
        took_ms = python_ms = 0.0

        def get_response(self, request: Any) -> Any:
            began_s, worked_s = time.perf_counter(), time.process_time()
            response = super().get_response(request)
            self.took_ms = (time.perf_counter() - began_s) * 1000
            self.python_ms = (time.process_time() - worked_s) * 1000
            return response

    client = Client(SERVER_NAME="localhost")
    client.handler = Timed(enforce_csrf_checks=False)
    client.force_login(owner)
    return client


def measure(client: Any, page: Any, requests: int) -> Figures:
    """Ask for the page's addresses in turn; of the queries the most of any, with its address."""
    status, queries, url = max(counted(client, each) for each in page.urls)
    times: list[float] = []
    worked: list[float] = []
    for number in range(max(requests, len(page.urls))):
        client.get(page.urls[number % len(page.urls)])
        times.append(client.handler.took_ms)
        worked.append(client.handler.python_ms)
    median_ms = statistics.median(times)
    misses = [
        *([f"status {status}"] if status >= 400 else []),
        *([f"more than {MOST_QUERIES} queries"] if queries > MOST_QUERIES else []),
        *([f"more than {MOST_MS[vendor()]:.0f} ms"] if median_ms > MOST_MS[vendor()] else []),
    ]
    return Figures(
        page.name, url, status, queries, round(median_ms, 1), round(max(times), 1),
        round(statistics.median(worked), 1), ", ".join(misses),
    )


def counted(client: Any, url: str) -> tuple[int, int, str]:
    """Status, number of queries and address again, of a page that was asked once before."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    client.get(url)
    with CaptureQueriesContext(connection) as asked:
        response = client.get(url)
    return response.status_code, len(asked), url


if __name__ == "__main__":
    sys.exit(main())
