"""One mailserver takes over from another, again and again, while clients connect, send and quit.

    python -m tests.faults.take_over --times 50 --senders 20

on SQLite; with POSTHOUSE_TEST_DATABASE=postgresql on a PostgreSQL of its own. The suite does
it a few times. Each message comes on a connection of its own, half of them by STARTTLS and
AUTH to the submission port, half to the MX port; beside them others only connect and quit,
so that at each moment somebody waits in a socket's queue. Some go to another server as well,
by the queues of both mailservers. No connection may be refused, reset or ended before its
QUIT, and each 250 arrives exactly once.
"""

import argparse
import os
import smtplib
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.kill_loop import is_drained, number_of
from tests.support.installation import PASSWORD, Installation, Template, message, until
from tests.support.peer import Peer

SHOP, OFFICE, BOB = "shop@demo.test", "office@demo.test", "bob@elsewhere.test"
KNOCKERS = 4
BETWEEN = 4  # messages of each sender between two take-overs
SETTLED_WITHIN_S = 30.0


@dataclass
class Load:
    """What the senders have done so far."""

    sent: int = 0
    knocks: int = 0
    answered: set[int] = field(default_factory=set)
    elsewhere: set[int] = field(default_factory=set)  # of those, what goes to the other server as well
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def next(self) -> int:
        with self.lock:
            self.sent += 1
            return self.sent


@dataclass(frozen=True)
class Result:
    times: int
    answered: int
    knocks: int
    elsewhere: int
    failures: list[str]
    lost: list[int]
    repeated: list[int]
    slowest_s: float

    @property
    def is_right(self) -> bool:
        return not (self.failures or self.lost or self.repeated)

    def __str__(self) -> str:
        return (
            f"{self.times} take-overs, {self.answered} connections with a message answered 250 ({self.elsewhere} for "
            f"another server as well) and {self.knocks} without, {len(self.failures)} failed {self.failures[:5]}, "
            f"lost {self.lost}, twice {self.repeated}; the slowest {self.slowest_s:.2f} s"
        )


class Sender(threading.Thread):
    """A connection a message, as fast as it goes."""

    def __init__(self, installation: Installation, load: Load, *, is_mx: bool) -> None:
        super().__init__(name="sender", daemon=True)
        self.installation = installation
        self.load = load
        self.is_mx = is_mx
        self.context = installation.context()

    def run(self) -> None:
        while not self.load.stop.is_set():
            number, began_s = self.load.next(), time.monotonic()
            try:
                self.send(number)
            except Exception as error:
                self.load.failures.append(f"{number} {'mx' if self.is_mx else 'submission'} {error!r}")
            else:
                self.load.answered.add(number)
            self.load.slowest_s = max(self.load.slowest_s, time.monotonic() - began_s)

    def send(self, number: int) -> None:
        """Also the answer to QUIT must come: a server that goes too soon doesn't give it."""
        port = self.installation.mx if self.is_mx else self.installation.submission
        sender = "peer@remote.test" if self.is_mx else SHOP
        with smtplib.SMTP("127.0.0.1", port, timeout=30, local_hostname="client.test") as client:
            if not self.is_mx:
                client.starttls(context=self.context)
                client.login(SHOP, PASSWORD)
            recipients = [OFFICE]
            if not self.is_mx and number % 3 == 0:
                recipients.append(BOB)
                self.load.elsewhere.add(number)
            client.sendmail(sender, recipients, message(sender, OFFICE, f"number {number}"))
            client.quit()


class Knocker(threading.Thread):
    """A connection that is greeted and quits, as often as it goes."""

    def __init__(self, installation: Installation, load: Load) -> None:
        super().__init__(name="knocker", daemon=True)
        self.port = installation.mx
        self.load = load

    def run(self) -> None:
        while not self.load.stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
                    greeting = connection.recv(1000)
                    connection.sendall(b"QUIT\r\n")
                    answers = greeting[:4], connection.recv(1000)[:4]
                if answers != (b"220 ", b"221 "):
                    raise ConnectionError(f"answered {answers}")
            except OSError as error:
                self.load.failures.append(f"knock {error!r}")
            else:
                self.load.knocks += 1


def prepare(template: Template, data: Path) -> Installation:
    installation = Installation(template, data)
    installation.run(
        "for each in [*Mailbox.objects.all(), *Tenant.objects.all()]:\n    world.limit(each, hour=None, day=None)\n"
    )
    return installation


def run(installation: Installation, *, times: int, senders: int) -> Result:
    """The loop, on an installation that runs; what came of every message."""
    other = Peer()
    other.start()
    try:
        installation.manage("route", "set", "elsewhere.test", f"smtp://{other.listen}")
        return _run(installation, other, times, senders)
    finally:
        other.stop()


def _run(installation: Installation, other: Peer, times: int, senders: int) -> Result:
    load = Load()
    threads: list[threading.Thread] = [Knocker(installation, load) for _ in range(KNOCKERS)]
    threads += [Sender(installation, load, is_mx=number % 2 == 0) for number in range(senders)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(times):
            _wait_for_more(load, senders)
            installation.take_over()
        _wait_for_more(load, senders)
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(60)
    inbox = installation.inbox(OFFICE)
    inbox.wait(len(load.answered), within_s=SETTLED_WITHIN_S)
    until(lambda: is_drained(installation), within_s=SETTLED_WITHIN_S, what="an empty queue")
    here = Counter(number_of(path.read_bytes()) for path in inbox.files())
    there = Counter(number_of(each.content) for each in other.received)
    return Result(
        times=times,
        answered=len(load.answered),
        knocks=load.knocks,
        elsewhere=len(load.answered & load.elsewhere),
        failures=load.failures,
        lost=sorted((load.answered - here.keys()) | (load.answered & load.elsewhere) - there.keys()),
        repeated=sorted(number for counts in (here, there) for number, count in counts.items() if count > 1),
        slowest_s=load.slowest_s,
    )


def _wait_for_more(load: Load, senders: int) -> None:
    wanted = load.sent + senders * BETWEEN
    until(lambda: load.sent >= wanted, within_s=60, what="the senders' next messages")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.take_over", description=__doc__)
    parser.add_argument("--times", type=int, default=6)
    parser.add_argument("--senders", type=int, default=20)
    options = parser.parse_args()
    cluster = None
    if os.environ.get("POSTHOUSE_TEST_DATABASE") == "postgresql":
        from tests.support.postgres import Postgres

        cluster = Postgres()
        cluster.start()
    with tempfile.TemporaryDirectory(prefix="ph-") as folder:
        installation = prepare(Template(Path(folder) / "template", cluster), Path(folder) / "data")
        try:
            installation.start()
            result = run(installation, times=options.times, senders=options.senders)
        finally:
            installation.kill()
    print(result)
    return 0 if result.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
