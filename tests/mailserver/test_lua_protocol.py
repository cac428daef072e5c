"""Dovecot 2.4's questions: whatever login and password hold, whatever else is sent, and our Lua script itself."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver import lua_protocol
from mailserver.dict_protocol import LINE_BYTES, BadLine, PasswordLookup, UserLookup, escape
from tests.support.authd_lua import auth_worker

pytestmark = pytest.mark.once("sqlite")

# What a client can send: UTF-8, and bytes that are none, as lone surrogates.
bytes_that_are_no_text = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
anything = st.text(st.characters(exclude_categories=("Cs",)) | bytes_that_are_no_text)
texts = anything.map(lambda text: text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


def line(*fields: str) -> bytes:
    return b"\t".join(escape(field.encode("utf-8", "surrogateescape")) for field in fields)


@given(texts, texts)
def test_every_login_and_password_is_understood(login: str, password: str):
    found = lua_protocol.parse(line("P", "pop3", "2001:db8:0::7", login, password))
    assert found == PasswordLookup("pop3", "2001:db8::7", login, password)
    assert lua_protocol.parse(line("U", login)) == UserLookup(login)


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"P", b"U", b"P\t", b"P\timap\t192.0.2.7\tshop", b"P\timap\t192.0.2.7\tshop\tsecret\tmore", b"U\ta\tb",
        b"P\timap\t\tshop\tsecret", b"P\timap\tlocalhost\tshop\tsecret", b"U\t\x01x", b"U\tx\x01", b"X\tshop",
        b"U\t" + b"x" * LINE_BYTES,
    ],
)
def test_what_our_script_does_not_send_is_refused(bad: bytes):
    with pytest.raises(BadLine) as refused:
        lua_protocol.parse(bad)
    assert "secret" not in str(refused.value)


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"P\timap\t192.0.2.7\t" + tail))
def test_any_bytes_are_a_question_or_a_bad_line(bad: bytes):
    try:
        assert isinstance(lua_protocol.parse(bad), PasswordLookup | UserLookup)
    except BadLine:
        pass


def test_an_answer_is_one_line_whatever_it_holds():
    assert lua_protocol.found({"home": "/a\tb\n=c", "user": "ü"}) == "O\thome=/a\x01tb\x01n=c\tuser=ü\n".encode()
    assert lua_protocol.failed("no\ndatabase") == b"F\tno\x01ndatabase\n"
    assert lua_protocol.quota(1000) == {"quota_storage_size": "1000B"}


# The script


class Scripted:
    """An authd whose every answer is chosen, and what it was asked."""

    def __init__(self, path: Path, *answers: bytes) -> None:
        self.path = path
        self.answers = list(answers)  # empty: the connection is cut
        self.asked: list[bytes] = []
        self.connections = 0

    async def __aenter__(self) -> "Scripted":
        self._server = await asyncio.start_unix_server(self._talk, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.path.unlink()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while asked := await reader.readline():
            self.asked.append(asked)
            answer = self.answers.pop(0)
            if not answer:
                break
            writer.write(answer)
        writer.close()


EVERY_BYTE = bytes(range(1, 256)).decode("utf-8", "surrogateescape") + "ü /\\'\"\t$%{user}"


@pytest.mark.lua
async def test_the_script_passes_every_byte_and_reads_every_answer(tmp_path: Path):
    facts = {"user": "shop@demo.test", "home": "/srv/a\tb=c\n\x01 \"ü\""}
    async with (
        Scripted(tmp_path / "s", lua_protocol.found(facts), b"N\n", b"F\tgone\n", lua_protocol.found(facts)) as authd,
        auth_worker(authd.path) as worker,
    ):
        assert await worker.login(EVERY_BYTE, EVERY_BYTE, protocol="sieve", ip="2001:db8::7") == ("ok", facts)
        assert await worker.login("a", "b") == ("wrong", {})
        assert await worker.login("a", "b") == ("failure", {})
        assert await worker.place(EVERY_BYTE) == ("ok", facts)
        assert authd.connections == 1
        assert [lua_protocol.parse(asked.removesuffix(b"\n")) for asked in authd.asked] == [
            PasswordLookup("sieve", "2001:db8::7", EVERY_BYTE, EVERY_BYTE),
            PasswordLookup("imap", "192.0.2.7", "a", "b"),
            PasswordLookup("imap", "192.0.2.7", "a", "b"),
            UserLookup(EVERY_BYTE),
        ]
        assert await worker.close() == ""


@pytest.mark.lua
async def test_the_script_finds_an_authd_that_was_started_again(tmp_path: Path):
    path = tmp_path / "s"
    async with auth_worker(path) as worker:
        assert await worker.login("a", "secret words") == ("failure", {})
        async with Scripted(path, b"N\n", b"") as authd:
            assert await worker.login("a", "b") == ("wrong", {})
            authd.answers += [b"N\n"]
            assert await worker.login("a", "b") == ("wrong", {}), "asked again on a new connection"
            assert authd.connections == 2
        assert await worker.place("a") == ("failure", {})
        logged = await worker.close()
    assert "authd doesn't answer" in logged
    assert "secret" not in logged
