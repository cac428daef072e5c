"""Sending limits over sliding windows: pure arithmetic over rings."""

from dataclasses import dataclass
from enum import Enum, IntEnum


class Kind(IntEnum):
    """What a limit can stand on."""

    CREDENTIAL = 1
    MAILBOX = 2
    DOMAIN = 3
    TENANT = 4


class Window(Enum):
    HOUR = "hour"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that is charged, and what it may reach. A window without an entry is unlimited."""

    kind: Kind
    id: int
    name: str  # "shop@demo.test", "demo.test", "Demo": for the owner's eyes
    limits: tuple[tuple[Window, int], ...]
    tenant_id: int | None = None  # whose it is: others are not told of its limits
