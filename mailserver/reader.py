"""Reads the message after DATA, in blocks that end at a CRLF, while it comes in.

Decides what is a message's end, what makes its bytes unacceptable, and where they are kept
meanwhile: up to 64 KiB in memory, above that in a file. Does not decide what the header
means, nor talk to the network. RFC 5321 §2.3.8, §4.1.1.4, §4.5.2, §4.5.3.1.

Only CR LF "." CR LF ends a message (CVE-2023-51764 and kin). One that holds a bare CR, a bare
LF or a NUL is read to its real end and then refused, so that what follows its first false end
is never taken for commands. The same is done with what is too large.
"""

import errno
import hashlib
from collections.abc import Callable
from typing import Protocol

from mailserver import log
from mailserver.config import Config
from mailserver.envelope import Body
from panel.rules import reply
from panel.rules.reply import Reply

# All bytes but NUL, LF and CR: what `translate` deletes to leave those three.
_HARMLESS = bytes(byte for byte in range(256) if byte not in b"\0\n\r")


class SpillFile(Protocol):
    """A file under spool/ that grows while a large message comes in (content.Spill).

    The writes are of the size of a block from the socket (at most 256 KiB), go to the page
    cache and are done on the event loop: a hop to a thread costs more than the write itself.
    They raise OSError when the disk is full.
    """

    def write(self, block: bytes) -> None: ...

    def finish(self) -> Body: ...

    def discard(self) -> None: ...


class DataReader:
    """One message between 354 and its final dot.

    `feed` it what comes from the socket until it returns what came after the end. Then
    `problem` is the reply that refuses it, or None and `body()` hands it over.
    `hopeless` says that the sender goes on and on past every bound: close the connection.

    Holds at most 64 KiB of body (`inline_bytes`), one unfinished line (`text_line_bytes`), the
    header block (`header_bytes`) and the block that is being fed.
    """

    def __init__(self, config: Config, new_spill: Callable[[], SpillFile]) -> None:
        self.problem: Reply | None = None
        self.hopeless = False
        self.size = 0  # without dot stuffing, RFC 1870 §5
        self._config = config
        self._new_spill = new_spill
        self._pending = bytearray()  # an unfinished line; it starts at a line's start
        self._looked = 0  # bytes of it that hold no CRLF
        self._wire_bytes = 0
        self._blocks: list[bytes] = []
        self._spill: SpillFile | None = None
        self._header_blocks: list[bytes] | None = []  # None once its end was seen
        self._header_size = 0
        self._header = b""

    def feed(self, data: bytes | bytearray) -> bytes | None:
        """Take what came. None: the message goes on; else what came after its end (perhaps nothing)."""
        pending = self._pending
        pending += data
        self._wire_bytes += len(data)
        last = pending.rfind(b"\r\n", max(0, self._looked - 1))
        if last < 0:
            self._looked = len(pending)
            self._bound_line()
            return None
        with memoryview(pending) as view:
            block, rest = bytes(view[: last + 2]), bytes(view[last + 2 :])
        pending.clear()
        self._looked = 0
        # rfind for three bytes is twice as fast as find for five, and mail rarely holds them.
        dotted = block.startswith(b".") or block.rfind(b"\r\n.") >= 0
        end = _end(block) if dotted else -1
        if end < 0:
            pending += rest
            self._looked = len(rest)
            self._take(block, dotted=dotted)
            self._bound_line()
            return None
        self._take(block[:end], dotted=dotted)
        if self._header_blocks is not None:
            self._end_header()
        return block[end + len(b".\r\n") :] + rest

    @property
    def header(self) -> bytes:
        """The header block with its last CRLF, without the blank line. Complete once the message is."""
        return self._header

    def body(self) -> Body:
        """The message, whole; its file is the caller's from here on. Raises OSError."""
        if self._spill is not None:
            spill, self._spill = self._spill, None
            return spill.finish()
        data = b"".join(self._blocks)
        return Body(self.size, hashlib.sha256(data).hexdigest(), data, None)

    def abandon(self) -> None:
        """Forget all that was kept; harmless after `body`."""
        self._blocks.clear()
        if self._spill is not None:
            spill, self._spill = self._spill, None
            spill.discard()

    def refuse(self, why: Reply) -> None:
        """The message is not taken, whatever follows; the first reason stands."""
        if self.problem is None:
            self.problem = why
            self._header_blocks = None
            self.abandon()

    def _take(self, block: bytes, *, dotted: bool) -> None:
        """Check and keep whole lines, the final dot not among them. `dotted`: a line may begin with a dot."""
        if self._wire_bytes > 2 * self._config.message_size + self._config.header_bytes:
            self.refuse(reply.TOO_LARGE.about(limit=self._config.message_size))
            self.hopeless = True
        if self.problem is not None or not block:
            return
        # Each CRLF gives two of the three bytes; one more is a bare CR, a bare LF or a NUL. The
        # count of pairs is needed: "a CR b LF" leaves the same two bytes as a CRLF does.
        odd = block.translate(None, _HARMLESS)
        if len(odd) != 2 * block.count(b"\r\n"):
            self.refuse(reply.NUL_BYTE if b"\0" in odd else reply.BARE_LINE_END)
            return
        # RFC 5321 §4.5.2: the first dot of a line is the sender's stuffing.
        if dotted:
            block = block.removeprefix(b".").replace(b"\r\n.", b"\r\n")
        if not _lines_within(block, self._config.text_line_bytes):
            self.refuse(reply.TEXT_LINE_TOO_LONG.about(limit=self._config.text_line_bytes))
            return
        self.size += len(block)
        if self.size > self._config.message_size:
            self.refuse(reply.TOO_LARGE.about(limit=self._config.message_size))
            return
        if self._header_blocks is not None:
            self._follow_header(block)
        if self.problem is None:
            self._keep(block)

    def _follow_header(self, block: bytes) -> None:
        """Collect blocks up to the blank line; a block starts at a line's start."""
        assert self._header_blocks is not None
        blank = 0 if block.startswith(b"\r\n") else block.find(b"\r\n\r\n") + 2
        ended = blank != 1
        self._header_blocks.append(block[:blank] if ended else block)
        self._header_size += len(self._header_blocks[-1])
        if self._header_size > self._config.header_bytes:
            self.refuse(reply.HEADER_TOO_LARGE.about(limit=self._config.header_bytes))
        elif ended:
            self._end_header()

    def _end_header(self) -> None:
        self._header = b"".join(self._header_blocks or ())
        self._header_blocks = None

    def _keep(self, block: bytes) -> None:
        try:
            if self._spill is not None:
                self._spill.write(block)
            elif self.size <= self._config.inline_bytes:
                self._blocks.append(block)
            else:
                self._spill = self._new_spill()
                self._spill.write(b"".join((*self._blocks, block)))
                self._blocks.clear()
        except OSError as error:
            self.refuse(not_kept(error))

    def _bound_line(self) -> None:
        """An unfinished line that is too long already is let go of: only its last byte matters.

        The "x" stands for what was there, so that nothing after it looks like a line's start.
        """
        pending = self._pending
        if len(pending) <= self._config.text_line_bytes + len(b".\r"):
            return
        self.refuse(reply.TEXT_LINE_TOO_LONG.about(limit=self._config.text_line_bytes))
        if self._wire_bytes > 2 * self._config.message_size + self._config.header_bytes:
            self.hopeless = True
        pending[:] = b"x" + pending[-1:]
        self._looked = len(pending)


def _end(block: bytes) -> int:
    """Where the final dot stands, or -1. `block` starts at a line's start."""
    if block.startswith(b".\r\n"):
        return 0
    at = block.find(b"\r\n.\r\n")
    return at if at < 0 else at + 2


def not_kept(error: OSError) -> Reply:
    """The reply for a body that could not be written; an operator is told."""
    log.warning("a message can't be kept", because=error.strerror or error, path=error.filename)
    return reply.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else reply.UNAVAILABLE


def _lines_within(block: bytes, limit: int) -> bool:
    """Whether no line of whole lines is longer than `limit`, its CRLF not counted."""
    start, length = 0, len(block)
    while length - start > limit + 2:
        # The farthest line end in reach: each step goes over many lines, so that this is linear.
        end = block.rfind(b"\r\n", start, start + limit + 2)
        if end < 0:
            return False
        start = end + 2
    return True
