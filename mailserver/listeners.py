"""The parent's ports: one SO_REUSEPORT socket per worker and listener, or those that it was given.

A socket that another mailserver hands over, or a service manager passes, is never closed
while its address is wanted: connections wait in its queue, and closing it resets them
(measured: 121–130 of 27,000 in six take-overs; none when sockets stay). DESIGN §2.
"""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from mailserver import log
from mailserver.config import CannotStart, Config
from mailserver.envelope import Listener
from panel.environment import Listen

BACKLOG = 1024

Sockets = list[tuple[Listener, socket.socket]]


@dataclass(frozen=True, slots=True)
class _Port:
    """A listener as the settings want it."""

    kind: Listener
    listen: Listen
    setting: str


_Pools = dict[_Port, list[socket.socket]]


class Listeners:
    """Every port of the settings, a socket of it for each worker."""

    def __init__(self, config: Config) -> None:
        self._ports = [
            *(_Port(Listener.MX, listen, "POSTHOUSE_MX") for listen in config.mx),
            *(_Port(Listener.SUBMISSION, listen, "POSTHOUSE_SUBMISSION") for listen in config.submission),
            *(_Port(Listener.SUBMISSIONS, listen, "POSTHOUSE_SUBMISSIONS") for listen in config.submissions),
        ]
        self._unwanted: list[socket.socket] = []
        self.of_worker: list[Sockets] = [[] for _ in range(config.workers)]

    def bind(self, given: Sequence[socket.socket] = ()) -> None:
        """Have a socket for each worker and port: those given, and what they lack. Nobody is accepted yet.

        Raises CannotStart. Ports below 1024 need root or a capability, unless they were given.
        """
        own, covered = self._sorted(given)
        taken = {each.getsockname()[1] for each in given}
        for port in self._ports:
            pool = own[port]
            if not pool and port.listen.port not in taken:
                # SO_REUSEPORT would let a second program share the port silently: ask for it alone first.
                bound(port.listen, port.setting, shared=False).close()
            if not pool or _is_shared(pool[0]):
                while len(pool) < len(self.of_worker):
                    try:
                        pool.append(bound(port.listen, port.setting, shared=True))
                    except CannotStart:
                        if not pool:
                            raise
                        break  # made by another user, root say: workers share those that there are
            for number, sockets in enumerate(self.of_worker):
                # A worker may have several of them, or several workers one.
                mine = pool[number :: len(self.of_worker)] or [pool[number % len(pool)]]
                sockets += [(port.kind, each) for each in (*mine, *covered[port][number :: len(self.of_worker)])]

    def listen(self) -> None:
        """Take connections: from now on they wait for a worker. Raises CannotStart."""
        for each in self.every():
            try:
                each.listen(BACKLOG)
            except OSError as error:
                name = Listen(*each.getsockname()[:2])
                raise CannotStart(f"{name} can't be listened on: {error.strerror}.") from None
        for each in self._unwanted:
            each.close()
        self._unwanted = []

    def every(self) -> list[socket.socket]:
        """Each socket once, so that whoever is given them in this order shares them out alike."""
        return list({each.fileno(): each for sockets in self.of_worker for _, each in sockets}.values())

    def close(self, but: int | None = None) -> None:
        """Close all, or all that worker `but` doesn't have."""
        kept = {each.fileno() for _, each in self.of_worker[but]} if but is not None else set()
        for each in (*self.every(), *self._unwanted):
            if each.fileno() not in kept:
                each.close()

    def _sorted(self, given: Sequence[socket.socket]) -> tuple[_Pools, _Pools]:
        """The given sockets by the port with their address, and by the wildcard that covers it; others are unwanted."""
        own: _Pools = {port: [] for port in self._ports}
        covered: _Pools = {port: [] for port in self._ports}
        for each in given:
            address = each.getsockname()[:2]
            for port, pool in (*own.items(), *covered.items()):
                if (_is_same if pool is own[port] else _is_covered)(address, port.listen):
                    pool.append(each)
                    break
            else:
                log.warning("a port is closed that no setting names any more", address=Listen(*address))
                self._unwanted.append(each)
        return own, covered


def bound(listen: Listen, setting: str, *, shared: bool) -> socket.socket:
    """A socket with this address that doesn't listen yet. Raises CannotStart, naming the setting."""
    made = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if ":" in listen.host:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((listen.host, listen.port))
    except OSError as error:
        made.close()
        raise CannotStart(f"{listen} can't be listened on: {_why(error, setting)}") from None
    made.setblocking(False)
    return made


def _why(error: OSError, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another program has this port. Stop it, or set {setting} to another address and port."
    if error.errno == errno.EACCES:
        return f"ports below 1024 need root or CAP_NET_BIND_SERVICE. Give it, or set {setting} to a higher port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine doesn't have that address. Set {setting} to one that it has."
    return f"{error.strerror}. Set {setting} to another address and port."


def _is_shared(each: socket.socket) -> bool:
    return bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))


def _is_same(address: tuple[str, int], listen: Listen) -> bool:
    return address[1] == listen.port and _ip(address[0]) == _ip(listen.host)


def _is_covered(address: tuple[str, int], listen: Listen) -> bool:
    """Whether who connects to `address` connects to what `listen`, a wildcard, stands for."""
    wanted, ip = _ip(listen.host), _ip(address[0])
    return address[1] == listen.port and wanted.is_unspecified and ip.version == wanted.version


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host.partition("%")[0])
