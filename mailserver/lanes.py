"""Which claimed message goes next: the fairness within a worker.

Pure: counts and queues in memory. What is claimed, and what becomes of it, is the runner's.
"""

from collections import Counter, deque
from dataclasses import dataclass
from datetime import datetime

from mailserver.envelope import ClaimedMessage

LOCAL = "local"  # the next hop of our own mailboxes
LMTP = "lmtp"  # and of those that Dovecot stores
OURS = frozenset({LOCAL, LMTP})
RUNNING = 100  # messages under way in a worker
RUNNING_A_TENANT = 25  # so that one tenant's slow remotes leave room for others
RUNNING_A_HOP = 5  # connections to one next hop; what large receivers bear from a stranger
RUNNING_LOCAL = 20

Lane = tuple[int | None, str]  # tenant, next hop


@dataclass(frozen=True, slots=True)
class Held:
    """A claimed message that waits for its turn."""

    message: ClaimedMessage
    claimed_at: datetime


class Lanes:
    """Claimed messages that wait for their turn, and how many are under way: the fairness within a worker.

    A lane is a tenant's mail to one next hop. Lanes take turns; a tenant and a hop have
    only so many under way at once.
    """

    def __init__(self) -> None:
        self._waiting: dict[Lane, deque[Held]] = {}
        self._running: Counter[Lane] = Counter()
        self._running_tenant: Counter[int | None] = Counter()
        self._running_hop: Counter[str] = Counter()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        return self._running.total()

    def messages(self) -> list[ClaimedMessage]:
        """All that wait."""
        return [held.message for queue in self._waiting.values() for held in queue]

    def add(self, held: Held) -> None:
        self._waiting.setdefault(lane_of(held.message), deque()).append(held)

    def next(self) -> Held | None:
        """The next one that may go, now counted as running; None when none may."""
        if self.running >= RUNNING:
            return None
        for lane in list(self._waiting):
            tenant, hop = lane
            most = RUNNING_LOCAL if hop in OURS else RUNNING_A_HOP
            if self._running_hop[hop] >= most or self._running_tenant[tenant] >= RUNNING_A_TENANT:
                continue
            queue = self._waiting.pop(lane)
            held = queue.popleft()
            if queue:
                self._waiting[lane] = queue  # at the end: others first
            self._count(lane, 1)
            return held
        return None

    def done(self, message: ClaimedMessage) -> None:
        self._count(lane_of(message), -1)

    def make_room(self) -> list[Held]:
        """The later half of the longest lane: taken out, to be put back into the queue."""
        lane = max(self._waiting, key=lambda each: len(self._waiting[each]), default=None)
        if lane is None:
            return []
        queue = self._waiting[lane]
        return [queue.pop() for _ in range(len(queue) // 2)]

    def clear(self) -> list[Held]:
        """All that wait, taken out."""
        waiting = [held for queue in self._waiting.values() for held in queue]
        self._waiting.clear()
        return waiting

    def _count(self, lane: Lane, change: int) -> None:
        for counter, key in ((self._running, lane), (self._running_tenant, lane[0]), (self._running_hop, lane[1])):
            counter[key] += change  # type: ignore[index]
            if not counter[key]:  # type: ignore[index]
                del counter[key]


def lane_of(message: ClaimedMessage) -> Lane:
    first = message.recipients[0]
    return first.tenant_id, first.next_hop
