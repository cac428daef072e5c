"""What a service manager hands to its service and wants to be told: sd_listen_fds(3), sd_notify(3)."""

import os
import socket

from mailserver import log

_FIRST = 3  # SD_LISTEN_FDS_START


def sockets() -> list[socket.socket]:
    """The listening sockets that were passed to this very process; none without a service manager.

    The variables are taken away, so that nothing that this process starts takes them for its own.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    made = []
    for descriptor in range(_FIRST, _FIRST + int(count)):
        os.set_inheritable(descriptor, False)
        try:
            each = socket.socket(fileno=descriptor)
        except OSError as error:
            log.warning("what the service manager passed is no socket", descriptor=descriptor, because=error)
            continue
        if each.family not in (socket.AF_INET, socket.AF_INET6) or each.type != socket.SOCK_STREAM:
            log.warning("what the service manager passed is no port of ours", descriptor=descriptor)
            each.close()
            continue
        each.setblocking(False)
        made.append(each)
    return made


def notify(**facts: object) -> None:
    """Tell the service manager, if there is one: READY=1, MAINPID=…, STOPPING=1."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]  # in the abstract name space
    text = "\n".join(f"{name}={value}" for name, value in facts.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(1.0)
            to.sendto(text.encode(), path)
    except OSError as error:
        log.warning("the service manager can't be told", because=error)
