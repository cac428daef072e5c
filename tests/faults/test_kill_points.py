"""kill -9 of all processes at a named point of a message's life; then an ordinary start, and no help.

What was answered 250 arrives; what was not either arrives whole or not at all. Here nothing
comes twice; elsewhere only what the other server had taken and we had not yet written down.
"""

import os
import re
import signal
import smtplib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.installation import Inbox, Installation, Template, message, until
from tests.support.peer import Peer, SlowPeer, peer

RECOVERED_WITHIN_S = 50.0  # ten are promised; a busy machine has five times that
DAYS_S = 2 * 86400.0
LARGE = "".join(f"{number:06} " + "x" * 70 + "\r\n" for number in range(3000))  # above what stays in memory

SHOP, OFFICE, BOB, NOBODY = "shop@demo.test", "office@demo.test", "bob@elsewhere.test", "nobody@elsewhere.test"


@dataclass(frozen=True)
class Case:
    """`answered`: the client heard 250; None: perhaps.

    `arrives`: at whom the message, or the report about it, is in the end.
    """

    point: str
    sent: str
    to: tuple[str, ...]
    answered: bool | None
    arrives: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.point} {self.sent}"


HERE, BOTH = (OFFICE, SHOP), (OFFICE, SHOP, BOB)
CASES = [
    Case("before-stage", "small", BOTH, False, ()),
    Case("half-written", "large", BOTH, False, ()),
    Case("staged", "small", BOTH, False, ()),
    Case("kept", "large", BOTH, False, ()),
    Case("committed", "small", BOTH, False, BOTH),
    Case("renamed", "large", BOTH, False, BOTH),
    Case("published", "small", BOTH, False, BOTH),
    Case("published", "from outside", HERE, False, HERE),
    Case("before-rows", "from outside", HERE, None, HERE),
    Case("claimed", "large", BOTH, True, BOTH),
    Case("carried", "small", BOTH, True, BOTH),
    Case("settled", "large", (BOB,), True, (BOB,)),
    Case("dsn-made", "small", (NOBODY,), True, (SHOP,)),
    Case("half-written", "small", (NOBODY,), True, (SHOP,)),
    Case("queue-staged", "small", (NOBODY,), True, (SHOP,)),
    Case("queue-published", "small", (NOBODY,), True, (SHOP,)),
]


class House:
    """One installation that all cases use one after another, and the server elsewhere."""

    def __init__(self, installation: Installation, elsewhere: Peer) -> None:
        self.installation = installation
        self.elsewhere = elsewhere
        installation.manage("route", "set", "elsewhere.test", f"smtp://{elsewhere.listen}")
        self.inboxes = {address: installation.inbox(address) for address in HERE}

    def start_to_crash(self, point: str) -> None:
        self.installation.start(module=f"tests.support.crashing {point}")

    def is_dead(self) -> bool:
        server = self.installation.server
        if server is None or server.poll() is None:
            return False
        assert server.returncode == -signal.SIGKILL, self.installation.log.read_text()[-3000:]
        return True

    def start_again(self) -> None:
        until(self.is_dead, what="the kill")
        self.installation.start()

    def left(self) -> list[str]:
        """What lies in staging/ and spool/."""
        data = self.installation.data
        return [entry.name for folder in (data / "mail" / "staging", data / "spool") for entry in folder.iterdir()]

    def age(self, folder: str, names: str = "*") -> None:
        """Make what a crash left there two days old, so that the sweep takes it for abandoned."""
        before = time.time() - DAYS_S
        for path in (self.installation.data / folder).glob(names):
            os.utime(path, (before, before))

    def waiting(self) -> int:
        return self.installation.query("SELECT COUNT(*) FROM sending_recipient WHERE state = 'waiting'")[0][0]

    def count(self, recipient: str, subject: str) -> int:
        """How many copies came to a recipient; a report about a message counts as one."""
        if recipient in self.inboxes:
            return self.inboxes[recipient].count(f"Subject: {subject}\r\n")
        wanted = f"<{recipient}>"
        return sum(
            f"Subject: {subject}\r\n".encode() in received.content
            and any(wanted in rcpt for rcpt in received.rcpts)
            for received in self.elsewhere.received
        )


@pytest.fixture(scope="module")
def house(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with peer(rcpt={NOBODY: "550 5.1.1 no such user"}) as elsewhere:
        installation = Installation(template, tmp_path_factory.mktemp("kill-points") / "data")
        try:
            yield House(installation, elsewhere)
        finally:
            installation.kill()


@pytest.fixture
def stopped(house: House) -> Iterator[House]:
    """Not running before the case, nor after it, however that ended."""
    yield house
    house.installation.kill()


def send(installation: Installation, case: Case, subject: str) -> bool:
    """Whether it was answered 250; False when the connection was cut before the answer."""
    text = LARGE if case.sent == "large" else "Hello.\r\n"
    try:
        if case.sent == "from outside":
            with smtplib.SMTP("127.0.0.1", installation.mx, timeout=60) as client:
                client.sendmail("carol@third.test", case.to, message("carol@third.test", case.to[0], subject, text))
        else:
            with installation.client(SHOP) as client:
                client.sendmail(SHOP, case.to, message(SHOP, case.to[0], subject, text))
    except smtplib.SMTPServerDisconnected:
        return False
    return True


def half_written(inbox: Inbox) -> list[str]:
    """Files that aren't as long as their names say."""
    return [
        path.name for path in inbox.files()
        if path.stat().st_size != int(re.search(r",S=(\d+)", path.name)[1])  # type: ignore[index]
    ]


# Where the point is one of the files', either database finds the same: half of these run on each.
OF_FILES = {
    "before-stage": "sqlite", "half-written": "postgresql", "staged": "sqlite", "kept": "postgresql",
    "renamed": "sqlite", "published": "postgresql", "queue-staged": "sqlite", "queue-published": "postgresql",
}


def once(point: str) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.once(OF_FILES[point]),) if point in OF_FILES else ()


@pytest.mark.parametrize("case", [pytest.param(case, id=str(case), marks=once(case.point)) for case in CASES])
def test_a_kill_loses_nothing_and_repeats_nothing_here(stopped, case):
    house = stopped
    subject = f"{case.point} {case.sent} {len(case.to)}"
    house.start_to_crash(case.point)
    answered = send(house.installation, case, subject)
    assert case.answered in (answered, None)
    until(house.is_dead, what="the kill")
    house.age("spool")
    # What belongs to a message that was taken must be finished though it is fresh.
    house.age("mail/staging", "*" if not case.arrives else "try-*")

    began_s = time.monotonic()
    house.start_again()
    until(
        lambda: all(house.count(each, subject) for each in case.arrives) and not house.waiting(),
        within_s=RECOVERED_WITHIN_S, what=f"recovery (to {case.arrives})",
    )
    print(f"\n{case}: recovered in {time.monotonic() - began_s:.1f} s, the start included")
    until(lambda: not house.left(), what=f"an empty staging/ and spool/: {house.left()}")
    copies = {each: house.count(each, subject) for each in BOTH}
    repeats = {BOB} if case.point == "carried" else set()
    assert {each for each, count in copies.items() if count} == set(case.arrives)
    assert {each for each, count in copies.items() if count > 1} == repeats
    assert [name for inbox in house.inboxes.values() for name in half_written(inbox)] == []


@pytest.mark.parametrize("point", [
    "committed", pytest.param("carried", marks=pytest.mark.once("sqlite")),
    pytest.param("queue-staged", marks=once("queue-staged")),
])
def test_a_kill_neither_loses_nor_repeats_what_rules_make_of_a_message(stopped, point):
    """A copy that is kept, one that is forwarded, and an answer: each once, only the one elsewhere perhaps twice."""
    subject, name = f"ruled {point}", f"{point}@demo.test"
    stopped.installation.run(
        f"box = world.mailbox({name!r}, quota_bytes=10**6)\n"
        f"world.rules(box, forward_to=[{BOB!r}], vacation=True, vacation_text='Away.')"
    )
    ruled = stopped.installation.inbox(name)
    stopped.start_to_crash(point)
    answered = send(stopped.installation, Case(point, "small", (name,), None, ()), subject)
    assert answered == (point != "committed")
    until(stopped.is_dead, what="the kill")
    stopped.age("mail/staging", "*" if point == "committed" else "try-*")
    stopped.start_again()

    def copies() -> tuple[int, int, int]:
        kept = ruled.count(f"Subject: {subject}\r\n")
        return kept, stopped.count(BOB, subject), stopped.count(SHOP, f"Auto: {subject}")

    until(lambda: all(copies()) and not stopped.waiting(), within_s=RECOVERED_WITHIN_S, what="recovery")
    until(lambda: not stopped.left(), what=f"an empty staging/ and spool/: {stopped.left()}")
    # The forward and the answer are carried at once: the kill may find either under way.
    assert copies() in [(1, 1, 1), (1, 2, 1)]
    assert copies()[1] == 1 or point != "committed"
    rows = stopped.installation.query("SELECT sender FROM mailboxes_vacationanswer")
    assert rows.count((SHOP,)) == len(rows)


@pytest.mark.once("postgresql")
def test_a_kill_between_two_renames_of_a_message_that_the_client_sends_again(stopped):
    """Mail from outside has no row yet, so what was staged is nobody's: but no 250 was said for it."""
    subject = "between renames"
    again = Case("renamed", "from outside", HERE, True, HERE)
    stopped.start_to_crash("renamed")
    assert not send(stopped.installation, again, subject)
    until(stopped.is_dead, what="the kill")
    stopped.age("mail/staging")
    stopped.start_again()
    assert send(stopped.installation, again, subject)
    assert sorted(stopped.count(each, subject) for each in HERE) == [1, 2]
    until(lambda: not stopped.left(), what=f"an empty staging/: {stopped.left()}")


@pytest.mark.postfix
@pytest.mark.parametrize("point", [
    pytest.param("claimed", marks=pytest.mark.once("postgresql")),
    pytest.param("carried", marks=pytest.mark.once("sqlite")),
])
def test_a_kill_before_and_after_a_postfix_took_the_message(installation, dns, postfix, point):
    dns.zone("elsewhere.test", "@ MX 10 mx\nmx A 127.0.0.1\n")
    postfix.start()
    settings = {"dns": dns.listen, "outward_port": postfix.port}
    installation.start(module=f"tests.support.crashing {point}", **settings)
    installation.send(SHOP, BOB, subject="To a Postfix")
    until(lambda: installation.server.poll() is not None, what="the kill")
    began_s = time.monotonic()
    installation.start(**settings)
    until(
        lambda: installation.query("SELECT state FROM sending_recipient") == [("delivered",)],
        within_s=RECOVERED_WITHIN_S, what="the delivery",
    )
    print(f"\n{point}: recovered in {time.monotonic() - began_s:.1f} s, the start included")
    copies = 1 if point == "claimed" else 2
    assert len(until(lambda: found if len(found := postfix.inbox("bob")) >= copies else [])) == copies


def test_workers_that_outlive_a_killed_parent_finish_and_nobody_repeats_what_they_do(installation):
    """They hold their lock, so that the next ones leave their leases alone."""
    elsewhere = SlowPeer()
    elsewhere.start()
    try:
        installation.manage("route", "set", "elsewhere.test", f"smtp://{elsewhere.listen}")
        installation.start()
        workers = installation.workers()
        installation.send(SHOP, BOB, subject="Under way")
        assert elsewhere.asked.wait(30)
        os.kill(installation.server.pid, signal.SIGKILL)
        installation.server.wait(10)
        installation.start()
        installation.send(SHOP, OFFICE, subject="Meanwhile")
        assert installation.query("SELECT COUNT(*) FROM sending_recipient WHERE lease_until IS NOT NULL") == [(1,)]
        elsewhere.gate.set()
        until(
            lambda: installation.query("SELECT COUNT(*) FROM sending_recipient WHERE state = 'waiting'") == [(0,)],
            what="the end of the delivery",
        )
        until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers), what="the old workers' end")
        assert len(elsewhere.received) == 1
    finally:
        elsewhere.stop()
