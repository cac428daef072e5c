"""The log: one line a mail event, queue id first; a function an event.

info is a mail event, warning is for an operator, error is a fault of ours. Never a
body, a password or an AUTH line. Values are quoted, so that a hostile one can't
start a line of its own.
"""

import logging
import sys
from collections.abc import Collection

from panel.database import ids

_log = logging.getLogger("posthouse")


def setup(process: str) -> None:
    """Log to standard error, each line with the process's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {process} %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _log.setLevel(logging.INFO)


def _line(event: str, queue_id: int | None, facts: dict[str, object]) -> str:
    first = ids.to_text(queue_id) if queue_id is not None else "-"
    rest = " ".join(f"{key}={_clean(value)}" for key, value in facts.items() if value not in (None, ""))
    return f"{first} {event} {rest}".rstrip()


def _clean(value: object) -> str:
    text = str(value)[:500]
    if text.isascii() and text.isprintable() and " " not in text and '"' not in text:
        return text
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'


def started(what: str, **facts: object) -> None:
    _log.info(_line("started", None, {"what": what, **facts}))


def stopped(what: str, **facts: object) -> None:
    _log.info(_line("stopped", None, {"what": what, **facts}))


def logged_in(login: str, ip: str, credential: str) -> None:
    _log.info(_line("login", None, {"login": login, "ip": ip, "credential": credential}))


def login_failed(login: str, ip: str, because: str) -> None:
    _log.info(_line("login-failed", None, {"login": login, "ip": ip, "because": because}))


def login_locked(login: str, ip: str, what: str) -> None:
    """A lockout begins: further logins of its kind are answered "try again later", and not logged each."""
    _log.info(_line("login-locked", None, {"login": login, "ip": ip, "what": what}))


def sessions_ended(logins: Collection[str], because: str) -> None:
    """Dovecot ended all sessions of these users; so many of them are named."""
    named = ",".join(sorted(logins)[:10])
    _log.info(_line("sessions-ended", None, {"users": len(logins), "login": named, "because": because}))


def refused(verb: str, ip: str, reply: object, **facts: object) -> None:
    _log.info(_line("refused", None, {"verb": verb, "ip": ip, "reply": reply, **facts}))


def accepted(queue_id: int, **facts: object) -> None:
    _log.info(_line("accepted", queue_id, facts))


def delivered(queue_id: int, **facts: object) -> None:
    _log.info(_line("delivered", queue_id, facts))


def deferred(queue_id: int, **facts: object) -> None:
    _log.info(_line("deferred", queue_id, facts))


def failed(queue_id: int, **facts: object) -> None:
    _log.info(_line("failed", queue_id, facts))


def discarded(queue_id: int, **facts: object) -> None:
    """A recipient among others that blocks the sender."""
    _log.info(_line("discarded", queue_id, facts))


def answered(queue_id: int, **facts: object) -> None:
    """An automatic answer was made to this message; it is written unless its sender had one lately."""
    _log.info(_line("answered", queue_id, facts))


def held(queue_id: int, **facts: object) -> None:
    _log.info(_line("held", queue_id, facts))


def bounced(queue_id: int, **facts: object) -> None:
    _log.info(_line("bounced", queue_id, facts))


def removed(what: str) -> None:
    """Something closed whose grace period ended, with all that it held."""
    _log.info(_line("removed", None, {"what": what}))


def domain_became(domain: str, life: str) -> None:
    """What a look at its DNS made of a domain: active, warning or suspended."""
    _log.info(_line("domain", None, {"name": domain, "life": life}))


def mailbox_filling(mailbox: str, **facts: object) -> None:
    """A mailbox has reached a threshold of its quota; its owner is told by mail."""
    _log.info(_line("mailbox-filling", None, {"mailbox": mailbox, **facts}))


def recovered(queue_id: int | None, **facts: object) -> None:
    _log.info(_line("recovered", queue_id, facts))


def warning(what: str, **facts: object) -> None:
    """Something that an operator should look at."""
    _log.warning(_line("warning", None, {"what": what, **facts}))


def fault(what: str, **facts: object) -> None:
    """A fault of ours, with the traceback of the exception being handled."""
    _log.error(_line("fault", None, {"what": what, **facts}), exc_info=sys.exc_info()[0] is not None)
