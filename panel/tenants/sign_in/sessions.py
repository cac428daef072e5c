"""The panel's sessions: Django's in the database, with whose they are, from where, and when last used.

The settings name this module as SESSION_ENGINE. A session that is ended here is gone with its next
request: nothing is kept beside the database. A session's key is its secret, so pages and forms know
it by a digest.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.client_address import client_ip
from panel.tenants import audit
from panel.tenants.changes import Gone, one_line, owners_alone
from panel.tenants.models import PanelSession, User

WHERE = "where"  # in the session: from where it began
VERIFIED = "second_factor"  # in the session: it was opened with one
SEEN_EVERY = timedelta(minutes=5)  # a request more often writes nothing
MOST_OF_ONE = 50  # of one account; the longest unused go first
MOST_OF_NOBODY = 10_000  # on the way in; the oldest go first
MOST_BROWSER = 200

# The first that is found in a User-Agent names it: most name others as well.
_BROWSERS = (("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (
    ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS", "macOS"),
    ("CrOS", "ChromeOS"), ("Linux", "Linux"),
)


class SessionStore(DatabaseStore):
    """Django's, over PanelSession."""

    seen_at: Any = None

    @classmethod
    def get_model_class(cls) -> type[PanelSession]:
        return PanelSession

    def load(self) -> dict[str, Any]:
        session = self._get_session_from_db()  # type: ignore[attr-defined] # the stubs don't know it
        self.seen_at = session.seen_at if session else None
        return self.decode(session.session_data) if session else {}

    def create_model_instance(self, data: dict[str, Any]) -> PanelSession:
        session: PanelSession = super().create_model_instance(data)  # type: ignore[assignment]
        where = data.get(WHERE, {})
        session.user_id = int(data[SESSION_KEY]) if SESSION_KEY in data else None
        session.ip, session.browser = where.get("ip"), where.get("browser", "")
        if "began_at" in where:
            session.began_at = datetime.fromisoformat(where["began_at"])
        return session

    def delete(self, session_key: str | None = None) -> None:
        with transaction.atomic():
            super().delete(session_key)


class Seen:
    """Django's middleware: notes now and then that a session is in use."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        now = timezone.now()
        seen_at = getattr(request.session, "seen_at", None)
        if seen_at is not None and now - seen_at > SEEN_EVERY:
            with transaction.atomic():
                PanelSession.objects.filter(pk=request.session.session_key).update(seen_at=now)
        return response


def begin(request: HttpRequest, account: User) -> None:
    """Write into the new session from where it is, and let go of what is over."""
    request.session[WHERE] = {
        "ip": client_ip(request),
        "browser": request.headers.get("User-Agent", "")[:MOST_BROWSER].replace("\x00", ""),
        "began_at": timezone.now().isoformat(),
    }
    # One in which a passkey was asked for before anybody was known was to end soon.
    request.session.set_expiry(None)
    forget_old()
    with transaction.atomic():
        others = PanelSession.objects.filter(user=account).order_by("-seen_at").values_list("pk", flat=True)
        PanelSession.objects.filter(pk__in=list(others[MOST_OF_ONE - 1:])).delete()


@transaction.atomic
def forget_old() -> None:
    """Let go of what is over, and of the oldest that nobody came in with."""
    PanelSession.objects.filter(expire_date__lt=timezone.now()).delete()
    nobodys = PanelSession.objects.filter(user=None).order_by("-began_at").values_list("pk", flat=True)
    PanelSession.objects.filter(pk__in=list(nobodys[MOST_OF_NOBODY:][:MOST_OF_NOBODY])).delete()


def of(account: User) -> list[PanelSession]:
    """The account's open sessions, the one used last first."""
    return list(PanelSession.objects.filter(user=account, expire_date__gt=timezone.now()).order_by("-seen_at"))


def name_of(session_key: str | None) -> str:
    """How pages and forms call a session: it says nothing of the key."""
    return hashlib.blake2b((session_key or "").encode(), digest_size=12, person=b"session").hexdigest()


def browser(user_agent: str) -> str:
    """Such as "Firefox on Linux"; what is no known one, as it names itself."""
    program = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if program and system:
        return _("{program} on {system}").format(program=program, system=system)
    return program or system or user_agent[:60] or _("unknown")


@transaction.atomic
def end(account: User, name: str, *, actor: User | None, ip: str | None = None) -> None:
    """End the session of this name. Raises Gone."""
    owners_alone(actor, account)
    found = next((each for each in of(account) if name_of(each.session_key) == name), None)
    if found is None or not PanelSession.objects.filter(pk=found.pk).delete()[0]:
        raise Gone(_("This session is over already."))
    told = {"from": found.ip, "browser": browser(found.browser)}
    audit.record(actor, "account.session_ended", account, tenant=None, before=told, ip=ip)


@transaction.atomic
def end_all(
    account: User, *, but: str | None = None, reason: str = "", actor: User | None, ip: str | None = None
) -> int:
    """End all sessions of the account, except the one of the key `but`. How many that were. Raises ServiceError."""
    owners_alone(actor, account)
    reason = one_line(reason, "reason", most=500)
    ended, _rows = PanelSession.objects.filter(user=account).exclude(pk=but or "").delete()
    after = {"ended": ended}
    audit.record(actor, "account.sessions_ended", account, tenant=None, after=after, reason=reason, ip=ip)
    return ended
