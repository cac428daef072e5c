"""Stores that speak LMTP: a scripted one whose every reply is chosen, and a real Dovecot."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from panel.environment import Listen

DOVECOT = Path("/usr/sbin/dovecot")
LMTPD = Path("/usr/lib/dovecot/lmtp")
# Of the system's own users: one that Dovecot lets a mailbox belong to, as vmail would be.
OWNER = "mail"


@dataclass
class Script:
    """What is unlike a good store. Verbs are CONNECT, LHLO, MAIL, DATA, RSET."""

    answers: dict[str, str] = field(default_factory=dict)  # a verb's reply
    rcpt: dict[str, str] = field(default_factory=dict)  # a recipient's reply at RCPT
    stored: dict[str, str] = field(default_factory=dict)  # a recipient's reply after the dot
    hangs_at: str = ""  # a verb, or DOT: no reply ever
    drops_after: int | None = None  # replies after the dot; then the connection is cut
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES")


class LmtpPeer:
    """A scripted LMTP server in a thread, on a Unix socket or, without one, a loopback port."""

    def __init__(self, path: Path | None = None, **script) -> None:
        self.script = Script(**script)
        self.stored: list[tuple[str, bytes]] = []  # a recipient and the content, for each 250 after a dot
        self.commands: list[str] = []
        self.connections = 0
        self.hanging = 0  # sessions that were given no reply
        self.where: Listen | Path = path or Listen("127.0.0.1", 0)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="lmtp", daemon=True)

    @property
    def setting(self) -> str:
        return f"lmtp:{self.where}"

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        if isinstance(self.where, Path):
            server = self._loop.run_until_complete(asyncio.start_unix_server(self._talk, self.where))
        else:
            server = self._loop.run_until_complete(asyncio.start_server(self._talk, self.where.host, 0))
            self.where = Listen(*server.sockets[0].getsockname())
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._session(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rcpts: list[str] = []
        await self._say(writer, "CONNECT", "220 store.test LMTP")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            self.commands.append(line)
            verb = line[:4].upper()
            if verb == "LHLO":
                await self._say(writer, verb, "\r\n".join(
                    f"250-{word}" for word in ("store.test", *self.script.extensions)) + "\r\n250 HELP")
            elif verb == "RCPT":
                address = line.partition("<")[2].partition(">")[0]
                answer = self.script.rcpt.get(address, "250 2.1.5 OK")
                rcpts += [address] if answer.startswith("2") else []
                await self._say(writer, verb, answer)
            elif verb == "DATA":
                answer = self.script.answers.get("DATA") or ("354 go" if rcpts else "503 5.5.1 no recipients")
                await self._say(writer, verb, answer)
                if answer.startswith("354"):
                    content = (await reader.readuntil(b"\r\n.\r\n"))[:-3].replace(b"\r\n..", b"\r\n.")
                    await self._store(writer, rcpts, content)
                    rcpts = []
            elif verb == "QUIT":
                return
            else:
                rcpts = []
                await self._say(writer, verb, "250 2.0.0 OK")

    async def _store(self, writer: asyncio.StreamWriter, rcpts: list[str], content: bytes) -> None:
        for number, address in enumerate(rcpts):
            if number == self.script.drops_after:
                await writer.drain()
                raise ConnectionAbortedError
            answer = self.script.stored.get(address, f"250 2.0.0 <{address}> Saved")
            if answer.startswith("250"):
                self.stored.append((address, content))
            await self._say(writer, "DOT", answer)

    async def _say(self, writer: asyncio.StreamWriter, verb: str, answer: str) -> None:
        if verb == self.script.hangs_at:
            self.hanging += 1
            await asyncio.Event().wait()
        writer.write(self.script.answers.get(verb, answer).encode() + b"\r\n")
        await writer.drain()


@contextmanager
def lmtp_peer(path: Path | None = None, **script) -> Iterator[LmtpPeer]:
    made = LmtpPeer(path, **script)
    made.start()
    try:
        yield made
    finally:
        made.stop()


CONFIGURATION = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
listen = 127.0.0.1
protocols = lmtp
ssl = no
default_internal_user = {owner}
default_internal_group = {group}
default_login_user = nobody
mail_location = maildir:~/Maildir
mail_plugins = quota
first_valid_uid = 1
auth_username_chars =
quota_full_tempfail = {tempfail}
userdb {{
  driver = passwd-file
  args = username_format=%Lu {folder}/users
}}
passdb {{
  driver = static
  args = nopassword=y
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
service lmtp {{
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
}}
"""


class DovecotStore:
    """A real Dovecot that takes mail by LMTP on a Unix socket, as root or as whoever runs the tests."""

    def __init__(self, users: tuple[str, ...], *, quota_bytes: dict[str, int] | None = None, tempfail: bool = True):
        self.folder = Path(tempfile.mkdtemp(prefix="ph-lmtp-"))
        self.folder.chmod(0o755)
        self.where = self.folder / "lmtp"
        owner = pwd.getpwnam(OWNER) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        for name in ("run", "state", "mail"):
            (self.folder / name).mkdir(mode=0o755)
        os.chown(self.folder / "mail", owner.pw_uid, owner.pw_gid)
        internal = "dovecot" if os.geteuid() == 0 else owner.pw_name
        (self.folder / "conf").write_text(CONFIGURATION.format(
            folder=self.folder, owner=internal, group=internal, tempfail="yes" if tempfail else "no",
        ))
        rules = {user: f"userdb_quota_rule=*:bytes={size}" for user, size in (quota_bytes or {}).items()}
        (self.folder / "users").write_text("".join(
            f"{user}::{owner.pw_uid}:{owner.pw_gid}::{self.home(user)}::{rules.get(user, '')}\n" for user in users
        ))

    def home(self, user: str) -> Path:
        return self.folder / "mail" / user.partition("@")[0]

    @property
    def setting(self) -> str:
        return f"lmtp:{self.where}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [DOVECOT, "-F", "-c", self.folder / "conf"], stdin=subprocess.DEVNULL, start_new_session=True,
        )
        deadline = time.monotonic() + 10
        while not self.where.exists():
            assert time.monotonic() < deadline and self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)

    def mail(self, user: str) -> list[bytes]:
        """What the user has, with CRLF as IMAP gives it: Dovecot's Maildir holds LF."""
        files = sorted(self.home(user).glob("Maildir/new/*"))
        return [path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for path in files]


@contextmanager
def dovecot_store(*users: str, **options) -> Iterator[DovecotStore]:
    made = DovecotStore(users, **options)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.folder, ignore_errors=True)
