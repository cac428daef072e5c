"""How a domain's proof lives: pending → active → warning → suspended, and when it is looked at again.

A proof by TXT record is looked at again and again. It holds while the record is there, or the MX
leads here: who can set that can set the other, and some tidy up. When both are gone for GRACE, the
domain's sending stops (its proof has lapsed); its receiving goes on. What the DNS doesn't answer
changes nothing. A proof that the provider checked never lapses by itself.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from panel.rules.facts import Proof

GRACE = timedelta(days=7)
SPREAD = 0.2  # of a delay, to either side: what was made together isn't asked together
_PENDING = (  # while it is this young, so often
    (timedelta(days=1), timedelta(minutes=5)), (timedelta(days=7), timedelta(hours=1)),
)
_DAILY = timedelta(days=1)
_SOON = timedelta(hours=1)
_UNANSWERED = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class Life:
    """`missing_since`: when proof and MX were first seen missing; None while one of them is there."""

    proof: Proof
    missing_since: datetime | None = None

    @property
    def word(self) -> str:
        if self.proof is Proof.PENDING:
            return "pending"
        if self.proof is Proof.LAPSED:
            return "suspended"
        return "warning" if self.missing_since else "active"

    @property
    def ends_at(self) -> datetime | None:
        """When sending stops, of a domain in warning."""
        return self.missing_since + GRACE if self.missing_since and self.proof is Proof.PROVED else None


def step(
    life: Life, *, by_record: bool, proof_found: bool | None, mx_is_ours: bool | None, now: datetime
) -> Life:
    """What follows from one look. `by_record`: the TXT record proved it. None: the DNS didn't say."""
    if proof_found:
        return Life(Proof.PROVED)
    if life.proof is Proof.PENDING or not by_record:
        return life
    if mx_is_ours:
        # Not enough to come back from a lapse: a new owner may lead their mail anywhere.
        return Life(life.proof)
    if life.proof is Proof.LAPSED or proof_found is None or mx_is_ours is None:
        return life
    since = life.missing_since or now
    return Life(Proof.LAPSED) if now - since >= GRACE else Life(Proof.PROVED, since)


def next_look_s(life: Life, *, age: timedelta, answered: bool, jitter: float) -> float:
    """Seconds until the next look at a domain; `age` since it was added, `jitter` in [0, 1)."""
    if life.proof is Proof.PENDING:
        delay = next((often for young, often in _PENDING if age < young), _DAILY)
    elif not answered:
        delay = _UNANSWERED
    else:
        delay = _DAILY if life.word == "active" else _SOON
    return delay.total_seconds() * (1 - SPREAD + 2 * SPREAD * jitter)
