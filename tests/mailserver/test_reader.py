"""What ends a message, what spoils it, and what of it is kept."""

import dataclasses
import hashlib
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.reader import DataReader
from panel.rules import reply
from tests.support.house import OPEN, Spill, StandInContent

pytestmark = pytest.mark.once("sqlite")

CONFIG = dataclasses.replace(OPEN, message_size=40_000_000)
MESSAGE = b"..From: a@b\r\nX: .\r\n\r\n..\r\nline\r\n...dots\r\n\r\n.x\r\nend\r\n"
STORED = b".From: a@b\r\nX: .\r\n\r\n.\r\nline\r\n..dots\r\n\r\nx\r\nend\r\n"
AFTER = b"MAIL FROM:<next@b.test>\r\nQUIT\r\n"


@pytest.fixture
def content(tmp_path: Path) -> StandInContent:
    return StandInContent(tmp_path)


def read(content: StandInContent, *pieces: bytes, **settings: int) -> tuple[DataReader, bytes | None]:
    """Feed the pieces; the reader, and what it gave back after the end."""
    reader = DataReader(dataclasses.replace(CONFIG, **settings), content.new_spill)
    for number, piece in enumerate(pieces):
        rest = reader.feed(piece)
        if rest is not None:
            return reader, rest + b"".join(pieces[number + 1 :])
    return reader, None


def stored(reader: DataReader) -> bytes:
    assert reader.problem is None
    body = reader.body()
    data = body.data if body.path is None else body.path.read_bytes()
    assert data is not None
    assert body.size == len(data) and body.sha256 == hashlib.sha256(data).hexdigest()
    return data


@pytest.mark.parametrize("inline_bytes", [64 * 1024, 20], ids=["memory", "file"])
def test_message_cut_at_every_byte(content: StandInContent, inline_bytes: int):
    whole = MESSAGE + b".\r\n" + AFTER
    for cut in range(1, len(whole)):
        reader, rest = read(content, whole[:cut], whole[cut:], inline_bytes=inline_bytes)
        assert stored(reader) == STORED
        assert rest == AFTER
        assert reader.header == b".From: a@b\r\nX: .\r\n"


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_message_in_small_pieces(content: StandInContent, length: int):
    whole = MESSAGE + b".\r\n" + AFTER
    reader, rest = read(content, *(whole[at : at + length] for at in range(0, len(whole), length)))
    assert stored(reader) == STORED
    assert rest == AFTER


@pytest.mark.parametrize(
    ("message", "body", "header"),
    [
        (b".\r\n", b"", b""),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"a: b\r\n.\r\n", b"a: b\r\n", b"a: b\r\n"),
        (b"a: b\r\n\r\n.\r\n", b"a: b\r\n\r\n", b"a: b\r\n"),
        (b"a: b\r\n\r\n\r\n.\r\n", b"a: b\r\n\r\n\r\n", b"a: b\r\n"),
        (b"a: b\r\n c\r\n\r\nbody: no\r\n.\r\n", b"a: b\r\n c\r\n\r\nbody: no\r\n", b"a: b\r\n c\r\n"),
        (b". .\r\n.\r\n", b" .\r\n", b" .\r\n"),
    ],
)
def test_header_and_body(content: StandInContent, message: bytes, body: bytes, header: bytes):
    for cut in range(1, len(message)):
        reader, rest = read(content, message[:cut], message[cut:])
        assert (stored(reader), reader.header, rest) == (body, header, b"")


FALSE_ENDS = [
    b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r\r\n.\r", b"\n\r.\r\n", b"\r\n\0.\r\n",
]  # fmt: skip


@pytest.mark.parametrize("false_end", FALSE_ENDS)
def test_false_end_does_not_end_and_spoils_the_message(content: StandInContent, false_end: bytes):
    smuggled = b"x: y\r\n\r\nfirst" + false_end + b"MAIL FROM:<smuggled@b.test>\r\nDATA\r\n"
    whole = smuggled + b"\r\n.\r\n" + AFTER
    for cut in range(1, len(whole)):
        reader, rest = read(content, whole[:cut], whole[cut:])
        assert rest == AFTER
        assert reader.problem in (reply.BARE_LINE_END, reply.NUL_BYTE)


ODD = [b"a\rb\nc\r\n", b"a\n\rb\r\n", b"\r\r\n", b"a\n\r\n", b"\n", b"a\0\r\n", b"a\r\n\rb\n\r\n"]


@pytest.mark.parametrize("odd", ODD)
def test_bare_line_ends_and_nul_are_found_wherever_they_stand(content: StandInContent, odd: bytes):
    for before in (b"", b"x: y\r\n" * 20):
        reader, rest = read(content, before + odd + b"\r\n.\r\n" + AFTER)
        assert reader.problem is (reply.NUL_BYTE if b"\0" in odd else reply.BARE_LINE_END)
        assert rest == AFTER


PARTS = [b"\r\n", b"\r", b"\n", b".", b"\0", b"x", b"a: b", b"\r\n.\r\n", b"\r\n\r\n"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS)), st.data())
def test_any_stream_in_any_pieces_reads_as_the_standard_says(parts: list[bytes], data: st.DataObject):
    stream = b"".join(parts) + b"\r\n.\r\n" + AFTER
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=5)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    # RFC 5321 §4.5.2, in the plainest words.
    before, _, after = (b"\r\n" + stream).partition(b"\r\n.\r\n")
    content = (before + b"\r\n")[2:]
    lines = content.split(b"\r\n")
    plain = b"\r\n".join(line.removeprefix(b".") for line in lines)
    odd = any(byte in line for line in lines for byte in (b"\r", b"\n", b"\0"))

    reader = DataReader(CONFIG, lambda: 1 // 0)
    rest = None
    for number, piece in enumerate(pieces):
        rest = reader.feed(piece)
        if rest is not None:
            rest += b"".join(pieces[number + 1 :])
            break
    assert rest == after
    if odd:
        assert reader.problem in (reply.BARE_LINE_END, reply.NUL_BYTE)
    else:
        assert stored(reader) == plain
        head, blank, _ = (b"\r\n" + plain).partition(b"\r\n\r\n")
        assert reader.header == ((head + b"\r\n")[2:] if blank else plain)


def test_longest_line_is_bounded(content: StandInContent):
    for cut in (1, 500, 1000, 1001, 1002, 10_000):
        good = b"x" * 1000 + b"\r\n.\r\n"
        reader, rest = read(content, good[:cut], good[cut:], text_line_bytes=1000)
        assert reader.problem is None and rest == b""
        stuffed = b"." + good
        reader, rest = read(content, stuffed[:cut], stuffed[cut:], text_line_bytes=1000)
        assert reader.problem is None and rest == b""
        bad = b"x" * 1001 + b"\r\n.\r\n"
        for whole in (bad, b"a\r\n" * 999 + bad):
            reader, rest = read(content, whole[:cut], whole[cut:], text_line_bytes=1000)
            assert reader.problem == reply.TEXT_LINE_TOO_LONG.about(limit=1000) and rest == b""


def test_end_of_a_line_that_was_let_go_of_is_no_line_start(content: StandInContent):
    long = b"x" * 3000
    for pieces in ([long, b".\r\n", b"\r\n", b".\r\n"], [long, b"\r", b"\n.\r\n"], [long, b"\r", b".\r\n.\r\n"]):
        reader, rest = read(content, *pieces, text_line_bytes=1000)
        assert reader.problem is not None
        assert rest == b"", pieces


def test_header_block_is_bounded(content: StandInContent):
    header = b"x: " + b"y" * 95 + b"\r\n"
    reader, _ = read(content, *([header] * 100), b"\r\n.\r\n", header_bytes=10_000)
    assert reader.problem is None and len(reader.header) == 10_000
    reader, rest = read(content, *([header] * 101), b"\r\n.\r\n", header_bytes=10_000)
    assert reader.problem == reply.HEADER_TOO_LARGE.about(limit=10_000) and rest == b""


def test_size_is_bounded_and_what_was_kept_is_gone(content: StandInContent):
    line = b"x" * 998 + b"\r\n"
    reader, _ = read(content, b"\r\n", *([line] * 200), b".\r\n", message_size=200_002)
    assert len(stored(reader)) == 200_002
    reader, rest = read(content, b"\r\n", *([line] * 201), b".\r\n" + AFTER, message_size=200_002)
    assert reader.problem == reply.TOO_LARGE.about(limit=200_002)
    assert rest == AFTER and not reader.hopeless
    assert len(content.files) == 1


def test_sender_that_never_ends_is_hopeless(content: StandInContent):
    reader, rest = read(content, *([b"x" * 998 + b"\r\n"] * 500), message_size=100_000, header_bytes=1000)
    assert reader.hopeless and rest is None
    reader, rest = read(content, *([b"x" * 1000] * 500), message_size=100_000, header_bytes=1000)
    assert reader.hopeless and rest is None
    assert not content.files


def test_full_disk_is_told_at_the_end(tmp_path: Path):
    class Full(Spill):
        def write(self, block: bytes) -> None:
            raise OSError(28, "No space left on device")

    reader = DataReader(CONFIG, lambda: Full(tmp_path))
    for _ in range(100):
        assert reader.feed(b"x" * 998 + b"\r\n") is None
    assert reader.feed(b".\r\n") == b""
    assert reader.problem is reply.DISK_FULL
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", [b"\r\n", b"..\r\n", b"ab\r\n"], ids=["empty", "stuffed", "short"])
def test_twenty_mebibytes_of_short_lines_take_little_memory(content: StandInContent, line: bytes):
    block = line * (65536 // len(line))
    reader = DataReader(CONFIG, content.new_spill)
    tracemalloc.start()
    began = time.process_time()
    reader.feed(b"x: y\r\n\r\n")
    for _ in range(20 * 1024 * 1024 // len(block)):
        assert reader.feed(block) is None
    assert reader.feed(b".\r\n") == b""
    taken = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1024 * 1024
    assert taken < 5, "linear: some 0.1 s"
    reader.abandon()


def test_long_line_byte_by_byte_is_linear(content: StandInContent):
    reader = DataReader(CONFIG, content.new_spill)
    began = time.process_time()
    for _ in range(200_000):
        reader.feed(b"x")
    assert time.process_time() - began < 5, "linear: some 0.1 s"
    assert reader.feed(b"\r\n.\r\n") == b""
    assert reader.problem is not None
