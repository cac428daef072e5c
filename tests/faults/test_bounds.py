"""What is too long, too large, too many or too slow: a proper reply, bounded memory, and others go on.

All on one server; after each test its workers are still the ones that were started.
"""

import smtplib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.installation import Installation, Template, message, until

pytestmark = pytest.mark.once("postgresql")
MIB = 1024 * 1024
MESSAGE_SIZE = 24 * MIB
SHOP, OFFICE = "shop@demo.test", "office@demo.test"
# Of a worker, above what it had before: a message may take twice its size; it takes much less.
MORE_BYTES = 2 * MESSAGE_SIZE


def peak(pid: int) -> int:
    """A process's largest resident memory since `forget_peak`, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def server(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(template, tmp_path_factory.mktemp("bounds") / "data", message_size=MESSAGE_SIZE)
    try:
        made.run("world.alias('@demo.test', 'office@demo.test')")
        made.start()
        made.send(SHOP, OFFICE, subject="Before")
        yield made
    finally:
        made.kill()


@pytest.fixture
def bounded(server: Installation) -> Iterator[Installation]:
    """Its memory stays bounded, its workers live on, and it works after the test."""
    workers = server.workers()
    before = {pid: peak(pid) for pid in workers if forget_peak(pid) is None}
    yield server
    assert server.workers() == workers
    more = {pid: peak(pid) - before[pid] for pid in workers}
    print(f"\nmemory of the workers: +{max(more.values()) / MIB:.1f} MiB")
    assert max(more.values()) < MORE_BYTES
    server.send(SHOP, OFFICE, subject="Still here")


class Raw:
    """A connection to the MX port, by bytes. What the server says is read beside what is sent."""

    def __init__(self, installation: Installation) -> None:
        self.socket = socket.create_connection(("127.0.0.1", installation.mx), timeout=30)
        self.heard = b""
        self.closed = False
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        try:
            while data := self.socket.recv(65536):
                self.heard += data
        except OSError:
            pass
        self.closed = True

    def send(self, data: bytes, times: int = 1) -> bool:
        """False if the server hung up meanwhile."""
        try:
            for _ in range(times):
                self.socket.sendall(data)
        except OSError:
            return False
        return True

    def replies(self) -> list[bytes]:
        """Whole replies, by their last lines, the greeting's first."""
        return [line for line in self.heard.split(b"\r\n")[:-1] if line[3:4] != b"-"]

    def wait(self, count: int) -> bytes:
        """The reply of that number. Each that comes before it gives the next ones their time anew."""
        while (had := len(self.replies())) < count and not self.closed:
            until(
                lambda had=had: len(self.replies()) > had or self.closed,  # type: ignore[misc]
                what=f"reply {had + 1} of {count}, after {self.replies()[-3:]},",
            )
        assert len(self.replies()) >= count, self.replies()[-3:]
        return self.replies()[count - 1]

    def say(self, *lines: bytes) -> bytes:
        """Send them at once; the reply to the last."""
        count = len(self.replies()) + len(lines)
        self.send(b"".join(line + b"\r\n" for line in lines))
        return self.wait(count)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def raw(bounded: Installation) -> Iterator[Raw]:
    made = Raw(bounded)
    made.wait(1)
    yield made
    made.close()


def to_data(raw: Raw) -> None:
    assert raw.say(
        b"EHLO client.test", b"MAIL FROM:<carol@third.test>", b"RCPT TO:<office@demo.test>", b"DATA"
    ).startswith(b"354")


def test_a_command_of_200_mib(raw):
    assert raw.send(b"x" * MIB, 200)
    assert raw.say(b"").startswith(b"500 5.5.2 ")
    assert raw.say(b"NOOP").startswith(b"250")


def test_a_line_of_the_message_of_200_mib(raw):
    to_data(raw)
    count = len(raw.replies())
    raw.send(b"Subject: x\r\n\r\n")
    raw.send(b"x" * MIB, 200)
    assert raw.wait(count + 1).startswith(b"554 5.6.0 ")
    until(lambda: raw.closed, what="the end of a connection that goes on and on")


def test_a_line_that_is_too_long_in_a_message_that_ends(raw):
    to_data(raw)
    assert raw.send(b"Subject: x\r\n\r\n" + b"x" * (4 * MIB) + b"\r\n")
    assert raw.say(b".").startswith(b"554 5.6.0 ")
    assert raw.say(b"NOOP").startswith(b"250")


def test_empty_lines_as_commands(raw):
    raw.send(b"\r\n" * (MIB // 2), 20)
    until(lambda: raw.closed, what="the end of the connection")
    replies = raw.replies()
    assert replies[-1].startswith(b"421 4.7.0 ")
    assert all(each.startswith(b"500 5.5.1 ") for each in replies[1:-1])


def test_20_mib_of_empty_lines_in_the_message(raw, bounded):
    before = len(bounded.inbox(OFFICE).files())
    to_data(raw)
    assert raw.send(b"Subject: empty\r\n\r\n" + b"\r\n" * (MIB // 2))
    assert raw.send(b"\r\n" * (MIB // 2), 19)
    assert raw.say(b".").startswith(b"250 2.0.0 ")
    assert len(bounded.inbox(OFFICE).wait(before + 1)) == before + 1


def test_a_message_above_the_limit(raw):
    to_data(raw)
    assert raw.send(b"Subject: large\r\n\r\n")
    assert raw.send((b"x" * 998 + b"\r\n") * 1024, MESSAGE_SIZE // MIB + 2)
    assert raw.say(b".").startswith(b"552 5.3.4 ")
    assert raw.say(b"NOOP").startswith(b"250")


@pytest.mark.parametrize("line", [b"X-Long: " + b"y" * 990, b"X: y"], ids=["long fields", "many fields"])
def test_a_header_above_the_limit(raw, line):
    to_data(raw)
    block = (line + b"\r\n") * (64 * 1024 // len(line))
    assert raw.send(block, 17)
    assert raw.send(b"\r\n")
    assert raw.say(b".").startswith(b"554 5.3.4 ")


def test_parts_within_parts_10_000_deep(raw):
    to_data(raw)
    assert raw.send(b"From: <carol@third.test>\r\nMIME-Version: 1.0\r\n")
    for depth in range(10_000):
        line = b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (depth, depth)
        assert raw.send(line)
    assert raw.say(b".").startswith(b"250 2.0.0 ")


def test_5000_recipients(raw):
    raw.say(b"EHLO client.test", b"MAIL FROM:<carol@third.test>")
    before = len(raw.replies())
    raw.send(b"".join(b"RCPT TO:<user%d@demo.test>\r\n" % number for number in range(5000)))
    raw.wait(before + 5000)
    answers = raw.replies()[before:]
    taken = sum(each.startswith(b"250 2.1.5 ") for each in answers)
    assert taken >= 100, "RFC 5321 §4.5.3.1.8"
    assert [each[:10] for each in answers] == [b"250 2.1.5 "] * taken + [b"452 4.5.3 "] * (5000 - taken)
    raw.say(b"DATA")
    raw.send(message("carol@third.test", "user0@demo.test", "To many"))
    assert raw.say(b".").startswith(b"250 2.0.0 "), "those that were taken get it"


def test_many_that_send_a_byte_at_a_time_dont_hold_up_an_honest_client(bounded):
    slow = [Raw(bounded) for _ in range(200)]
    try:
        for number, each in enumerate(slow):
            each.wait(1)
            if number % 2:
                to_data(each)
        longest_s = _beside(bounded, lambda: [each.send(b"x") for each in slow])
        assert not any(each.closed for each in slow), "it was beside all of them"
    finally:
        for each in slow:
            each.close()
    print(f"\nslowest message beside them: {longest_s * 1000:.0f} ms")


def _beside(installation: Installation, drip: Callable[[], object]) -> float:
    """The slowest of 20 messages while `drip` goes on."""
    stop = threading.Event()

    def dripping() -> None:
        while not stop.wait(0.01):
            drip()

    thread = threading.Thread(target=dripping)
    thread.start()
    try:
        longest_s = 0.0
        with smtplib.SMTP("127.0.0.1", installation.mx, timeout=60) as honest:
            for number in range(20):
                began_s = time.monotonic()
                honest.sendmail("dave@third.test", [OFFICE], message("dave@third.test", OFFICE, f"Honest {number}"))
                longest_s = max(longest_s, time.monotonic() - began_s)
        return longest_s
    finally:
        stop.set()
        thread.join()
