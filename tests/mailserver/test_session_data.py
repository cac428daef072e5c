"""DATA on the wire: false ends, bounds, and cuts at every byte."""

import pytest

from tests.support import house as houses
from tests.support.house import House

pytestmark = pytest.mark.once("sqlite")

OPENING = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<office@demo.test>\r\nDATA\r\n"


@pytest.fixture
async def house(tmp_path):
    async with houses.house(tmp_path, message_size=200_000, header_bytes=10_000) as made:
        yield made


async def answers(wire, count: int) -> list[str]:
    return [(await wire.reply())[-1] for _ in range(count)]


FALSE_ENDS = [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r", b"\r\nb\rc\nd"]


@pytest.mark.parametrize("false_end", FALSE_ENDS)
async def test_smuggled_commands_are_never_run(house: House, false_end: bytes):
    wire = await house.mx()
    await wire.send(OPENING)
    await answers(wire, 3)
    smuggled = b"MAIL FROM:<smuggled@b.test>\r\nRCPT TO:<office@demo.test>\r\nDATA\r\nx: smuggled\r\n"
    await wire.send(b"x: y\r\n\r\nfirst" + false_end + smuggled + b"\r\n.\r\nNOOP\r\n")
    spoilt, noop = await answers(wire, 2)
    assert spoilt.startswith("554 5.6.0 ")
    assert noop.startswith("250 2.0.0 ")
    assert not house.intake.taken


async def test_dots_are_unstuffed_wherever_the_stream_is_cut(house: House):
    wire = await house.mx()
    data = b"x: y\r\n\r\n..\r\n...\r\n.x\r\n\r\n..end\r\n.\r\n"
    for cut in range(1, len(data)):
        await wire.send(OPENING)
        await answers(wire, 3)
        await wire.send(data[:cut])
        await wire.send(data[cut:])
        assert (await wire.reply())[0].startswith("250 ")
    assert {taken.body.data for taken in house.intake.taken} == {b"x: y\r\n\r\n.\r\n..\r\nx\r\n\r\n.end\r\n"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\r\n" + (b"x" * 998 + b"\r\n") * 200, "552 5.3.4"),
        (b"x: " + b"y" * 990 + b"\r\n" + (b" " + b"y" * 990 + b"\r\n") * 10, "554 5.3.4"),
        (b"x: y\r\n\r\n" + b"z" * 65537 + b"\r\n", "554 5.6.0"),
        (b"x: y\r\n\r\na\0b\r\n", "554 5.6.0"),
        (b"x: y\r\n\r\na\nb\r\n", "554 5.6.0"),
    ],
    ids=["size", "header", "line", "nul", "bare LF"],
)
async def test_message_over_a_bound_is_refused_at_its_end_and_the_session_goes_on(
    house: House, message: bytes, expected: str
):
    wire = await house.mx()
    await wire.send(OPENING)
    await answers(wire, 3)
    await wire.send(message + b".\r\nNOOP\r\n")
    refused, noop = await answers(wire, 2)
    assert refused.startswith(expected)
    assert noop.startswith("250 2.0.0")
    assert not house.intake.taken and not house.content.files
    await wire.send(OPENING + b".\r\n")
    assert (await answers(wire, 4))[3].startswith("250 2.0.0 queued as ")


async def test_sender_that_never_ends_is_closed(house: House):
    wire = await house.mx()
    await wire.send(OPENING)
    await answers(wire, 3)
    with pytest.raises(ConnectionError):
        for _ in range(10_000):
            await wire.send(b"x" * 998 + b"\r\n")
    await house.until(lambda: not house.services.sessions)
    assert not house.intake.taken and not house.content.files


async def test_broken_reader_closes_lest_the_rest_run_as_commands(house: House, monkeypatch, caplog):
    monkeypatch.setattr("mailserver.reader.DataReader.feed", lambda self, data: 1 // 0)
    wire = await house.mx()
    await wire.send(OPENING)
    await answers(wire, 3)
    await wire.send(b"NOOP\r\nNOOP\r\n")
    assert (await wire.reply())[0].startswith("451 4.3.0 ")
    assert await wire.is_closed()
    assert "ZeroDivisionError" in caplog.text
