"""What the panel asks authd about its own sign-ins: a line of JSON, answered by one.

The panel checks its accounts' passwords itself. authd counts the wrong ones of mail clients,
so it is asked before ("may") and told after ("wrong", "right"). It gets no password: `guess`
is a digest, by which one and the same wrong password counts once.

{"id", "protocol": "panel", "act", "login", "ip", "guess"} → {"id", "standing", "wait_s"}
"""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

PROTOCOL = "panel"
LINE_BYTES = 4096  # of an answer


class Act(Enum):
    """What is asked or told."""

    MAY = "may"
    WRONG = "wrong"
    RIGHT = "right"


class Standing(Enum):
    """How a sign-in stands. STRANGERS: locked, unless the account signed in from that network lately."""

    OPEN = "open"
    LOCKED = "locked"
    STRANGERS = "strangers"


@dataclass(frozen=True, slots=True)
class Question:
    act: Act
    login: str
    ip: str
    guess: str = ""

    def line(self) -> bytes:
        fact = {"id": 1, "protocol": PROTOCOL, "act": self.act.value, "login": self.login, "ip": self.ip}
        return json.dumps(fact | {"guess": self.guess}, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def of(cls, fact: Any) -> "Question":
        """The question of a line. Raises ValueError, KeyError, TypeError."""
        return cls(Act(fact["act"]), str(fact["login"]), str(fact["ip"]), str(fact["guess"]))


@dataclass(frozen=True, slots=True)
class Answer:
    standing: Standing
    wait_s: float = 0.0  # until a lock ends, if nothing wrong follows

    def fact(self) -> dict[str, object]:
        return {"standing": self.standing.value, "wait_s": round(self.wait_s, 1)}

    @classmethod
    def read(cls, line: bytes) -> "Answer":
        """The answer of a line. Raises ValueError, KeyError, TypeError."""
        fact = json.loads(line)
        return cls(Standing(fact["standing"]), float(fact["wait_s"]))
