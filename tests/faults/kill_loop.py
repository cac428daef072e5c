"""kill -9 at random moments while clients send, and afterwards the count of every message.

    python -m tests.faults.kill_loop --kills 500

runs as long as it takes (about a second and a half a kill) on SQLite; with
POSTHOUSE_TEST_DATABASE=postgresql on a PostgreSQL of its own. The suite runs it with few kills.

A client never sends a message again. So each that was answered 250 is in its mailboxes here
exactly once, any other at most once; elsewhere a second copy is right only of what was being
sent when a kill fell.
"""

import argparse
import os
import random
import re
import signal
import smtplib
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.installation import Installation, Template, message, until
from tests.support.peer import Peer, Received

CLIENTS = 6
UP_S = (0.05, 1.5)  # between a start and the next kill
BETWEEN = 5  # messages at least between two kills, however busy the machine is
WHOLE = 0.5  # of the kills take all processes; the others one of them
DRAINED_WITHIN_S = 400.0  # what four kills in a row cut short waits five minutes
# Between the other server's 250 and our commit, on a busy machine.
UNSETTLED_S = 5.0
# What was sent before a kill is read by the other server after it, on a busy machine.
ON_THE_WAY_S = 1.0
SHOP, OFFICE, BOB = "shop@demo.test", "office@demo.test", "bob@elsewhere.test"
RECIPIENTS = ((OFFICE,), (BOB,), (OFFICE, SHOP, BOB))

_NUMBER = re.compile(rb"Subject: number (\d+)\r\n")


class Elsewhere(Peer):
    """The server elsewhere, which notes when each message came."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[int, list[float]] = {}

    def take(self, message: Received) -> None:
        self.times.setdefault(number_of(message.content), []).append(time.monotonic())
        super().take(message)


def number_of(content: bytes) -> int:
    found = _NUMBER.search(content)
    assert found, content[:200]
    return int(found[1])


@dataclass
class Sent:
    """What the clients sent: number → recipients, and the numbers that were answered 250."""

    numbers: dict[int, tuple[str, ...]] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def next(self) -> int:
        with self.lock:
            number = len(self.numbers)
            self.numbers[number] = RECIPIENTS[number % len(RECIPIENTS)]
            return number


@dataclass(frozen=True)
class Result:
    """Numbers of messages by what is wrong with them; `repeats` elsewhere that a kill explains are right."""

    sent: int
    answered: int
    kills: int
    lost: list[int]
    repeated_here: list[int]
    repeated_elsewhere: list[int]
    repeats: int
    slowest_s: float

    @property
    def is_right(self) -> bool:
        return not (self.lost or self.repeated_here or self.repeated_elsewhere)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.sent} messages, {self.answered} answered 250: lost {self.lost}, twice here "
            f"{self.repeated_here}, twice elsewhere {self.repeated_elsewhere} and {self.repeats} as a kill explains; "
            f"slowest start {self.slowest_s:.1f} s"
        )


class Client(threading.Thread):
    """Sends message after message, over a connection as long as it lasts."""

    def __init__(self, installation: Installation, sent: Sent) -> None:
        super().__init__(name="client", daemon=True)
        self.installation = installation
        self.sent = sent

    def run(self) -> None:
        while not self.sent.stop.is_set():
            try:
                with self.installation.client(SHOP) as client:
                    while not self.sent.stop.is_set():
                        self.send(client)
            except (OSError, smtplib.SMTPException):
                self.sent.stop.wait(0.02)  # the server is being started again

    def send(self, client: smtplib.SMTP) -> None:
        number = self.sent.next()
        recipients = self.sent.numbers[number]
        text = "x" * 70 + "\r\n"
        content = message(SHOP, recipients[0], f"number {number}", text * (2000 if number % 20 == 0 else 10))
        client.sendmail(SHOP, recipients, content)
        self.sent.answered.add(number)


def run(template: Template, data: Path, *, kills: int, chance: random.Random) -> Result:
    """The loop; what came of every message in the end."""
    elsewhere = Elsewhere()
    elsewhere.start()
    installation = Installation(template, data)
    try:
        installation.run(
            "for each in [*Mailbox.objects.all(), *Tenant.objects.all()]:\n    world.limit(each, hour=None, day=None)\n"
        )
        installation.manage("route", "set", "elsewhere.test", f"smtp://{elsewhere.listen}")
        installation.start()
        sent = Sent()
        clients = [Client(installation, sent) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        killed_at, slowest_s = _kill(installation, kills, chance, sent)
        sent.stop.set()
        for client in clients:
            client.join(60)
        if not is_drained(installation):
            # What kills cut short again and again would wait minutes for its next try.
            installation.run("from panel.sending.services import retry\nretry(Recipient.objects.all(), actor=None)")
        until(lambda: is_drained(installation), within_s=DRAINED_WITHIN_S, what="an empty queue")
        return _count(installation, elsewhere, sent, killed_at, slowest_s)
    finally:
        installation.kill()
        elsewhere.stop()


def _kill(
    installation: Installation, kills: int, chance: random.Random, sent: Sent
) -> tuple[list[float], float]:
    """When the kills fell, and the slowest start after one."""
    killed_at: list[float] = []
    slowest_s = 0.0
    for _ in range(kills):
        wanted = len(sent.answered) + BETWEEN
        until(lambda wanted=wanted: len(sent.answered) >= wanted, what="the next messages")  # type: ignore[misc]
        sent.stop.wait(chance.uniform(*UP_S))
        if chance.random() < WHOLE:
            installation.kill()
            killed_at.append(time.monotonic())
            installation.start()
            slowest_s = max(slowest_s, time.monotonic() - killed_at[-1])
        else:
            one = chance.choice(until(installation.workers, what="a worker"))
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed_at.append(time.monotonic())
    return killed_at, slowest_s


def is_drained(installation: Installation) -> bool:
    """Nothing waits but what waits for an operator, and no published mail is still staged."""
    [(waiting,)] = installation.query("SELECT COUNT(*) FROM sending_recipient WHERE state = 'waiting'")
    return not waiting


def _count(
    installation: Installation, elsewhere: Elsewhere, sent: Sent, killed_at: list[float], slowest_s: float
) -> Result:
    here = {
        address: Counter(number_of(path.read_bytes()) for path in installation.inbox(address).files())
        for address in (OFFICE, SHOP)
    }
    there = Counter({number: len(times) for number, times in elsewhere.times.items()})
    copies = {**here, BOB: there}
    explained, unexplained = 0, []
    for number, times in elsewhere.times.items():
        for came_at in sorted(times)[:-1]:
            if any(-ON_THE_WAY_S < kill - came_at < UNSETTLED_S for kill in killed_at):
                explained += 1
            else:
                unexplained.append(number)
    return Result(
        sent=len(sent.numbers), answered=len(sent.answered), kills=len(killed_at),
        lost=[number for number in sorted(sent.answered) if any(not copies[to][number] for to in sent.numbers[number])],
        repeated_here=sorted(number for counts in here.values() for number, count in counts.items() if count > 1),
        repeated_elsewhere=sorted(unexplained), repeats=explained, slowest_s=slowest_s,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kill_loop", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    cluster = None
    if os.environ.get("POSTHOUSE_TEST_DATABASE") == "postgresql":
        from tests.support.postgres import Postgres

        cluster = Postgres()
        cluster.start()
    with tempfile.TemporaryDirectory(prefix="ph-kill-") as folder:
        template = Template(Path(folder) / "template", cluster)
        result = run(
            template, Path(folder) / "data", kills=arguments.kills, chance=random.Random(arguments.seed)
        )
    print(result)
    return 0 if result.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
