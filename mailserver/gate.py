"""The gate that a process of ours waits at: it says that it is ready, and begins when the parent opens.

So that a mailserver takes over from another only when all of it can serve, and leaves the
other one untouched when it can't.
"""

import asyncio
import socket

_READY, _OPEN = b"r", b"o"


class Gate:
    """Made before the fork; then each side keeps its own end."""

    def __init__(self) -> None:
        self._outside, self._inside = socket.socketpair()

    # The parent's end

    def keep_outside(self) -> None:
        self._inside.close()

    def fileno(self) -> int:
        return self._outside.fileno()

    def is_ready(self) -> bool:
        """Once there is something to read: whether the process said that it is ready; False: it has ended."""
        try:
            return self._outside.recv(1) == _READY
        except OSError:
            return False

    def open(self) -> None:
        """Let it begin, now or as soon as it is ready. One that has ended is the parent's to notice."""
        try:
            self._outside.send(_OPEN, socket.MSG_NOSIGNAL)
        except OSError:
            pass

    def close(self) -> None:
        self._outside.close()
        self._inside.close()

    # The process's end

    def keep_inside(self) -> None:
        self._outside.close()

    async def passed(self) -> bool:
        """Say that this process is ready, and wait; False when the parent has gone."""
        loop = asyncio.get_running_loop()
        self._inside.setblocking(False)
        try:
            await loop.sock_sendall(self._inside, _READY)
            return await loop.sock_recv(self._inside, 1) == _OPEN
        except OSError:
            return False
        finally:
            self._inside.close()
