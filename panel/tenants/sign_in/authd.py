"""Asks authd about a sign-in (panel/rules/sign_in): one connection, one line, one answer, within the deadline."""

import os
import socket
import struct
import time

from django.conf import settings

from panel.environment import authd_socket
from panel.rules.sign_in import LINE_BYTES, Answer, Question

DEADLINE_S = 1.0  # of memory it asks: more than this is no authd, or one that hangs


def ask(question: Question) -> Answer | None:
    """The answer; None when authd isn't running here, hangs, or is another user's."""
    until_s = time.monotonic() + DEADLINE_S
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(authd_socket(settings.ENVIRONMENT.data)))
            if not _is_own(connection):
                return None
            connection.sendall(question.line())
            line = b""
            while not line.endswith(b"\n"):
                connection.settimeout(max(0.001, until_s - time.monotonic()))
                part = connection.recv(LINE_BYTES)
                line += part
                if not part or len(line) > LINE_BYTES:
                    return None
        return Answer.read(line)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_own(connection: socket.socket) -> bool:
    """Whether the other end is this user's or root's: a folder under the temp folder could be anybody's."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return uid in (os.geteuid(), 0)
