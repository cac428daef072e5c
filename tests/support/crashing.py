"""The mailserver with a step at which it dies: `python -m tests.support.crashing POINT [N]`.

Runs the real program. When the step is reached for the Nth time, in whichever of its
processes, all of them are killed at once by kill -9, as by a power cut. The product knows
nothing of it: the steps are wrapped from here. Installation.start(module=…) runs it.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import django


class Crash:
    """Kills the whole process group at the Nth time; counted over all processes of it."""

    def __init__(self, at: int) -> None:
        self._left = multiprocessing.get_context("fork").Value("i", at)

    def __call__(self) -> None:
        with self._left.get_lock():
            self._left.value -= 1
            if self._left.value == 0:
                os.killpg(os.getpgrp(), signal.SIGKILL)

    def before(self, owner: Any, name: str, *, if_: Callable[..., object] = lambda *_, **__: True) -> None:
        """Die before the step; `if_` looks at its arguments."""
        step = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            if if_(*arguments, **named):
                self()
            return step(*arguments, **named)

        setattr(owner, name, wrapped)

    def after(self, owner: Any, name: str, *, if_: Callable[[Any], object] = lambda _: True) -> None:
        """Die after the step, its result not yet seen; `if_` looks at the result."""
        step = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            result = step(*arguments, **named)
            if if_(result):
                self()
            return result

        setattr(owner, name, wrapped)

    def after_awaited(self, owner: Any, name: str) -> None:
        step = getattr(owner, name)

        async def wrapped(*arguments: Any, **named: Any) -> Any:
            result = await step(*arguments, **named)
            self()
            return result

        setattr(owner, name, wrapped)


def wrap(point: str, crash: Crash) -> None:
    """Put the crash at the point. Raises KeyError for an unknown one."""
    from mailserver import dsn, spool
    from mailserver.intake import Intake
    from mailserver.transports import maildir
    from mailserver.transports.smtp import SmtpTransport

    def has_parts(_: Intake, parts: list) -> bool:
        return bool(parts)

    def half_written() -> None:
        write = maildir._write_all

        def wrapped(descriptor: int, content: bytes) -> None:
            write(descriptor, content[: len(content) // 2])
            crash()
            write(descriptor, content[len(content) // 2 :])

        maildir._write_all = wrapped

    {
        # Intake, in its order.
        "before-stage": lambda: crash.before(Intake, "stage", if_=has_parts),
        "half-written": half_written,
        "staged": lambda: crash.before(Intake, "keep"),
        "kept": lambda: crash.before(Intake, "commit", if_=has_parts),
        "committed": lambda: crash.before(Intake, "publish", if_=has_parts),
        "renamed": lambda: crash.after(maildir, "_rename"),
        "published": lambda: crash.before(Intake, "_answer"),
        "before-rows": lambda: crash.before(Intake, "_write_later"),
        # The queue, in its order.
        "claimed": lambda: crash.after(spool, "claim", if_=bool),
        "carried": lambda: crash.after_awaited(SmtpTransport, "deliver"),
        "dsn-made": lambda: crash.after(dsn, "incoming"),
        "queue-staged": lambda: crash.before(spool, "mark_staged"),
        "queue-published": lambda: crash.after(maildir, "publish"),
        "settled": lambda: crash.after(spool, "settle"),
    }[point]()


def main() -> int:
    if os.getpgrp() != os.getpid():
        sys.exit("crashing kills its whole process group: start it as the leader of one of its own")
    point, at = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    sys.argv[1:] = []
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "panel.settings")
    django.setup()
    wrap(point, Crash(at))
    from mailserver.__main__ import main as mailserver

    return mailserver()


if __name__ == "__main__":
    sys.exit(main())
