"""Handing a running mailserver's sockets to the one that takes over from it.

The running one listens on a Unix socket in the run folder, for its own user alone. Who
connects to it wants to take over, and is given every listening socket, the lock and the
clock; nothing changes yet. Only when all of the new one is ready does it say so, and begin;
then the old one stops accepting and finishes its sessions. Whoever of the two dies before
that leaves the other one serving:

    new  → old   (connects)
    old  → new   {"what": [...]} with the sockets, in as many messages as they need
    old  → new   {"pid", "version", "clock_offset_s"}, or {"refused": why}
    old  → new   {"stopping": true}   it was told to stop before the new one was ready
    new  → old   {"taken": true}      it serves; the old one's connection ends with it
    new  → old   {"stop": true}       it was told to stop, and the old one is to as well

Each message is a datagram (SOCK_SEQPACKET), so that descriptors stay with theirs. The user
of the other end is asked of the kernel (SO_PEERCRED), on both sides.
"""

import json
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailserver.config import CannotStart, Config

DEADLINE_S = 10.0
LOCK, PORT = "lock", "port"
_MESSAGE_BYTES = 64 * 1024
_MOST_DESCRIPTORS = 200  # a message; the kernel takes 253 (SCM_MAX_FD)


@dataclass(slots=True)
class Handed:
    """What one mailserver hands to the next: sockets by what they are for, the lock, the time."""

    pid: int = 0
    version: str = ""
    clock_offset_s: float = 0.0
    lock: int = -1
    ports: list[socket.socket] = field(default_factory=list)
    doors: dict[str, socket.socket] = field(default_factory=dict)  # Unix sockets, by their file's name

    def close(self) -> None:
        """Forget all of it; who gave it has it still."""
        for each in (*self.ports, *self.doors.values()):
            each.close()
        if self.lock >= 0:
            os.close(self.lock)
        self.lock = -1


class Successor:
    """Who wants to take over, as the running one sees it."""

    def __init__(self, connection: socket.socket) -> None:
        """Raises PermissionError when it is another user's."""
        self._connection = connection
        connection.settimeout(DEADLINE_S)
        try:
            self.pid = _pid_of_own(connection)
        except PermissionError:
            connection.close()
            raise

    def fileno(self) -> int:
        return self._connection.fileno()

    def give(self, handed: Handed) -> None:
        """Raises OSError when it has gone."""
        what = [(LOCK, handed.lock)]
        what += [(PORT, each.fileno()) for each in handed.ports]
        what += [(name, each.fileno()) for name, each in handed.doors.items()]
        for start in range(0, len(what), _MOST_DESCRIPTORS):
            some = what[start : start + _MOST_DESCRIPTORS]
            _send(self._connection, {"what": [name for name, _ in some]}, [descriptor for _, descriptor in some])
        facts = {"pid": handed.pid, "version": handed.version, "clock_offset_s": handed.clock_offset_s}
        _send(self._connection, facts)

    def refuse(self, why: str) -> None:
        self._say({"refused": why})

    def tell_of_stop(self) -> None:
        self._say({"stopping": True})

    def said(self) -> str:
        """Once there is something to read: "taken" or "stop"; "" when it has gone."""
        return _word(self._connection, "taken", "stop")

    def close(self) -> None:
        self._connection.close()

    def _say(self, facts: dict[str, object]) -> None:
        try:
            _send(self._connection, facts)
        except OSError:
            pass  # it has gone


class Predecessor:
    """Who is taken over from, as the new one sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = 0

    @classmethod
    def find(cls, path: Path) -> "Predecessor | None":
        """The one that listens there; None when nobody does. Raises CannotStart when it can't be asked."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(DEADLINE_S)
        try:
            connection.connect(str(path))
            _pid_of_own(connection)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            return None
        except OSError as error:
            connection.close()
            raise CannotStart(f"the running mailserver can't be asked on {path}: {error.strerror or error}.") from None
        return cls(connection)

    def fileno(self) -> int:
        return self._connection.fileno()

    def receive(self) -> Handed:
        """All that it hands over. Raises CannotStart when it refuses or is late, ConnectionError when it has gone."""
        handed = Handed()
        try:
            while True:
                facts, descriptors = _receive(self._connection)
                if "refused" in facts:
                    raise CannotStart(f"can't take over: {facts['refused']}")
                if "what" not in facts:
                    break
                _put(handed, facts["what"], descriptors)
        except TimeoutError:
            handed.close()
            raise CannotStart(
                f"the running mailserver didn't hand its ports over within {DEADLINE_S:.0f} s; try again or restart it."
            ) from None
        except (CannotStart, ConnectionError):
            handed.close()
            raise
        handed.pid = self.pid = int(facts["pid"])
        handed.version = str(facts["version"])
        handed.clock_offset_s = float(facts["clock_offset_s"])
        return handed

    def is_stopping(self) -> bool:
        """Once there is something to read: whether it was told to stop; False: it has gone."""
        return _word(self._connection, "stopping") == "stopping"

    def tell_taken(self) -> None:
        self._say({"taken": True})

    def tell_to_stop(self) -> None:
        self._say({"stop": True})

    def close(self) -> None:
        self._connection.close()

    def _say(self, facts: dict[str, object]) -> None:
        try:
            _send(self._connection, facts)
        except OSError:
            pass  # it has gone: then nobody has to be told


def door(config: Config) -> Path:
    """Where the running mailserver listens for who takes over."""
    return config.socket("take-over.sock")


def listen(path: Path) -> socket.socket:
    """The socket there, of this user alone; the caller holds the node's lock. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # left behind by a kill
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mask = os.umask(0o177)
    try:
        made.bind(str(path))
        made.listen(8)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(mask)
    return made


def _put(handed: Handed, what: Sequence[str], descriptors: Sequence[int]) -> None:
    for name, descriptor in zip(what, descriptors, strict=True):
        if name == LOCK:
            handed.lock = descriptor
            continue
        each = socket.socket(fileno=descriptor)
        each.setblocking(False)
        if name == PORT:
            handed.ports.append(each)
        else:
            handed.doors[name] = each


def _send(connection: socket.socket, facts: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(connection, [json.dumps(facts).encode()], list(descriptors))


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One message with its descriptors. Raises ConnectionError at the end, or for what is no message."""
    text, descriptors, flags, _ = socket.recv_fds(connection, _MESSAGE_BYTES, _MOST_DESCRIPTORS)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    try:
        facts = json.loads(text)
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or len(facts.get("what", ())) != len(descriptors):
            raise ValueError
    except (ValueError, AttributeError):
        for descriptor in descriptors:
            os.close(descriptor)
        raise ConnectionResetError("no whole message") from None
    return facts, descriptors


def _word(connection: socket.socket, *words: str) -> str:
    """Which of the words the message says; "" for its end."""
    try:
        facts, descriptors = _receive(connection)
    except OSError:
        return ""
    for descriptor in descriptors:
        os.close(descriptor)
    return next((word for word in words if facts.get(word)), "")


def _pid_of_own(connection: socket.socket) -> int:
    """The process at the other end. Raises PermissionError when it is another user's."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    if uid != os.geteuid():
        raise PermissionError(f"process {pid} at the other end is another user's")
    return int(pid)
