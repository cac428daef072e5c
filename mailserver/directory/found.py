"""An answer of the directory with what it depends on: what the cache keeps and drops by."""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")

# What an answer depends on: a domain's name, a tenant's id, all tenants', or on everything.
Dependency = str | int
EVERY_TENANT = 0
ANY_CHANGE = -1


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """An answer, what it depends on, and the moment from which it no longer holds, if there is one."""

    value: T
    depends: frozenset[Dependency]
    until: datetime | None = None
