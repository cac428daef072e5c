"""Two of Linux's system calls that Python's os module lacks: signalfd and prctl(PR_SET_PDEATHSIG)."""

import ctypes
import os
import signal
import sys
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_SIGSET_WORDS = 16  # sigset_t of glibc and musl: 128 bytes
_SIGNALFD_SIGINFO_BYTES = 128
_libc = ctypes.CDLL(None, use_errno=True)


class Signals:
    """Signals that wait to be read, so that one poll waits for them and for sockets alike."""

    def __init__(self, numbers: Iterable[int]) -> None:
        """From now on these are blocked in this process; what it forks must unblock them. Raises OSError."""
        numbers = set(numbers)
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        mask = (ctypes.c_uint64 * _SIGSET_WORDS)()
        for number in numbers:
            mask[(number - 1) // 64] |= 1 << (number - 1) % 64
        self._descriptor = _libc.signalfd(-1, ctypes.byref(mask), os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "signalfd")

    def fileno(self) -> int:
        return self._descriptor

    def take(self) -> set[int]:
        """Those that arrived."""
        arrived: set[int] = set()
        while True:
            try:
                info = os.read(self._descriptor, _SIGNALFD_SIGINFO_BYTES)
            except BlockingIOError:
                return arrived
            arrived.add(int.from_bytes(info[:4], sys.byteorder))

    def close(self) -> None:
        os.close(self._descriptor)


def end_with(parent: int) -> bool:
    """Have SIGTERM sent to this process when its parent ends; False if it ended already.

    The kernel forgets it when the process changes its user or group: call it after that.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    return os.getppid() == parent
