"""suspend, resume, close and restore: the same acts for a mailbox, a domain and a tenant."""

from abc import abstractmethod
from typing import Any

from panel.operations import services
from panel.operations.management import base
from panel.rules.status import Status


class Command(base.Command):
    """A subclass says what it is (`noun`), how one is found and what its row is, and calls `add_stops`."""

    noun = ""

    @abstractmethod
    def find(self, name: str) -> Any:
        """The one of that name. Raises NotFound."""

    @abstractmethod
    def row_of(self, subject: Any) -> base.Row:
        """What is said of one, as `list` gives it."""

    def add_stops(self, acts: base.Acts, example: str, metavar: str) -> None:
        for name, do, text, reason in (
            ("suspend", self.suspend, f"Stop all logins and all sending of a {self.noun}; its mail still comes in.",
             "invoice 4711 is open"),
            ("resume", self.resume, f"Make a suspended {self.noun} active again, and what waits of it due.", "paid"),
            ("close", self.close, f"Close a {self.noun}: no logins, no sending, its mail is refused. It can be "
             "restored until the grace period ends (POSTHOUSE_GRACE_DAYS); then it is removed with all its mail.",
             "left us"),
            ("restore", self.restore, f"Undo the closing of a {self.noun} within its grace period: it is what it was "
             "before.", "closed by mistake"),
        ):
            act = acts.add(name, do, help=text, examples=f'{self.noun} {name} {example} --reason "{reason}"')
            act.add_argument("name", metavar=metavar)
            base.add_reason(act, required=name in ("suspend", "close"))
            if name == "suspend":
                act.add_argument("--sending-only", action="store_true", help="stop only the sending, not the logins")

    def suspend(self, *, name: str, reason: str, sending_only: bool) -> None:
        subject = self.find(name)
        services.suspend(subject, reason=reason, sending_only=sending_only, actor=None)
        self._say_state(subject)

    def resume(self, *, name: str, reason: str) -> None:
        subject = self.find(name)
        services.resume(subject, reason=reason, actor=None)
        self._say_state(subject)

    def close(self, *, name: str, reason: str) -> None:
        subject = self.find(name)
        services.close(subject, reason=reason, actor=None)
        until = f"{subject.grace_ends_at:%Y-%m-%d %H:%M} UTC"
        self.done(f"The {self.noun} {subject} is closed. It can be restored until {until}.", self.row_of(subject))

    def restore(self, *, name: str, reason: str) -> None:
        subject = self.find(name)
        services.restore(subject, reason=reason, actor=None)
        self._say_state(subject)

    def _say_state(self, subject: Any) -> None:
        self.done(f"The {self.noun} {subject} is {Status(subject.status).words}.", self.row_of(subject))
