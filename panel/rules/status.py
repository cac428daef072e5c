"""What a mailbox, a domain and a tenant may do in each status. The strictest of the three holds."""

from collections.abc import Iterable
from enum import IntEnum


class Status(IntEnum):
    """The larger, the stricter.

    | | log in | send | receive | its queue |
    |---|---|---|---|---|
    | active | yes | yes | yes | goes |
    | no sending | yes | 550 5.7.1 | yes | waits |
    | suspended | no | 550 5.7.1 | yes | waits |
    | closed | no | no | 550 5.1.1 | bounces at the end of the grace period |
    """

    ACTIVE = 0
    NO_SENDING = 1
    SUSPENDED = 2
    CLOSED = 3

    @property
    def may_log_in(self) -> bool:
        return self <= Status.NO_SENDING

    @property
    def may_send(self) -> bool:
        return self is Status.ACTIVE

    @property
    def may_receive(self) -> bool:
        return self <= Status.SUSPENDED

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


def strictest(statuses: Iterable[Status]) -> Status:
    """The status that holds when several apply."""
    return Status(max(statuses))
