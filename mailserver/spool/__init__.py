"""The spool's database side: take messages, lease what is due, settle how tries ended.

Synchronous; each thread has its own connection. Gives and takes frozen dataclasses.
Raises SpoolUnavailable when the database can't be reached or used; nothing is written then.
"""

from mailserver.spool.accept import LIFE, LMTP, LOCAL, Entry, accept, leased, recipients_of
from mailserver.spool.claim import (
    claim,
    count_waiting,
    mark_staged,
    next_due,
    read_content,
    release,
    release_all_but,
    republish,
    spool_keys_in_use,
    take_back,
    try_suspended,
    which_exist,
)
from mailserver.spool.closed import end_grace
from mailserver.spool.domains import recheck_domains
from mailserver.spool.nodes import NoFreeNumber, has_pending_migrations, register_node, seen
from mailserver.spool.notices import Notices, tell_of_room
from mailserver.spool.settle import Settled, settle
from mailserver.spool.sql import SpoolUnavailable, close_connection
from mailserver.spool.vacations import forget

__all__ = [
    "LIFE",
    "LMTP",
    "LOCAL",
    "Entry",
    "NoFreeNumber",
    "Notices",
    "Settled",
    "SpoolUnavailable",
    "accept",
    "claim",
    "close_connection",
    "count_waiting",
    "end_grace",
    "forget",
    "has_pending_migrations",
    "leased",
    "mark_staged",
    "next_due",
    "read_content",
    "recheck_domains",
    "recipients_of",
    "register_node",
    "release",
    "release_all_but",
    "republish",
    "seen",
    "settle",
    "spool_keys_in_use",
    "take_back",
    "tell_of_room",
    "try_suspended",
    "which_exist",
]
