"""Asks Dovecot to end open sessions, by its doveadm protocol on a Unix socket.

Decides what goes over the wire, no more. The socket takes `kick` alone
(panel/operations/dovecot/), and our user alone may connect:

    VERSION\\tdoveadm-server\\t1\\t0      ours
    +                                 its: go on
    \\t\\tkick\\tshop@demo.test          flags, for whom, command, user
    3\\t                              how many (2.4), or who (2.3)
    +                                 done; -NOTFOUND: nobody was there

Source: src/doveadm/client-connection-tcp.c, the same in Dovecot 2.3 and 2.4.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path

from mailserver.dict_protocol import escape

DEADLINE_S = 5.0  # for all users of one call together
LINE_BYTES = 64 * 1024

_HELLO = b"VERSION\tdoveadm-server\t1\t0\n"
_NOBODY = b"-NOTFOUND"


class KickFailed(Exception):
    """Dovecot is out of reach, late, or didn't do it; the text says which."""


async def kick(socket: Path, logins: Iterable[str]) -> None:
    """End every IMAP, POP3 and ManageSieve session of these users. Raises KickFailed.

    Dovecot takes a user for a pattern: one with `*` or `?` in the name ends more sessions
    than its own, whose clients log in again.
    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_BYTES)
            try:
                writer.write(_HELLO)
                if (greeting := await reader.readline()) != b"+\n":
                    raise KickFailed(f"Dovecot greets with {greeting!r}")
                for login in logins:
                    writer.write(b"\t\tkick\t" + escape(login.encode()) + b"\n")
                    await writer.drain()
                    await _done(reader)
            finally:
                writer.close()
    except TimeoutError:
        raise KickFailed(f"Dovecot doesn't answer within {DEADLINE_S} s") from None
    except (OSError, ValueError) as error:  # ValueError: a line without end
        raise KickFailed(f"Dovecot is out of reach: {error}") from None


async def _done(reader: asyncio.StreamReader) -> None:
    while line := (await reader.readline()).removesuffix(b"\n") or b"\n":
        if line.startswith((b"+", _NOBODY)):
            return
        if line.startswith(b"-") or reader.at_eof():
            raise KickFailed(f"Dovecot answers {line.decode(errors='replace')!r}")
