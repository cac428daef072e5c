"""Whether a sign-in is looked at, or told to come again later.

authd decides, by the counts that mail clients share (panel/rules/lockout). Where it isn't
running, on a machine with the panel alone or during a restart, the same rule holds over rows
in the database, which all of the panel's processes share.

An account knows a network when it signed in from there within 30 days, by the audit log. No
answer depends on whether the account exists; a sign-in that is locked is neither checked nor
counted.
"""

import hashlib
import hmac
import logging
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from panel.rules.addresses import BadAddress, parse_address
from panel.rules.lockout import WINDOW_S, Lockouts, network_of
from panel.rules.sign_in import Act, Answer, Question, Standing
from panel.tenants.models import AuditEntry, User, WrongSignIn
from panel.tenants.sign_in import authd

SIGNED_IN = "account.signed_in"
KNOWN_FOR = timedelta(days=30)
MOST_KNOWN = 200  # sign-ins that are looked through
MOST_ROWS = 10_000  # of wrong ones; the oldest go first
MOST_READ = 500

_log = logging.getLogger("posthouse.panel")


def wait_s(login: str, ip: str | None) -> float:
    """For how many seconds nothing is looked at; 0: go on."""
    login, ip = _canonical(login), ip or ""
    answer = authd.ask(Question(Act.MAY, login, ip)) or _by_the_database(login, ip)
    if answer.standing is Standing.OPEN or (answer.standing is Standing.STRANGERS and _knows(login, ip)):
        return 0.0
    return max(1.0, answer.wait_s)


def wrong(login: str, ip: str | None, guess: str) -> None:
    """Count a wrong password or code: `guess` is what was entered."""
    login, ip = _canonical(login), ip or ""
    digest = _digest(f"{len(login)}:{login}{guess}")
    if authd.ask(Question(Act.WRONG, login, ip, digest)) is None:
        # Else it is among the logins that authd records.
        _log.warning("sign-in failed, and no authd counts it: account %r from %s", login, ip)
        _keep(WrongSignIn(account=_digest(_same(login)), network=network_of(ip), ip=ip or None, guess=digest))


def right(login: str, ip: str | None) -> None:
    """Tell that somebody came in: the account knows this network."""
    authd.ask(Question(Act.RIGHT, _canonical(login), ip or ""))


def _canonical(login: str) -> str:
    return login.strip().lower()[:320]


def _same(login: str) -> str:
    """However an address is written, one and the same, as authd has it: each spelling would have its own guesses."""
    try:
        return str(parse_address(login).canonical)
    except BadAddress:
        return login


def _digest(text: str) -> str:
    """Tells one text from another; without the secret key it says nothing of a password."""
    data = text.encode("utf-8", "surrogatepass")
    return hmac.new(settings.SECRET_KEY.encode(), b"sign-in" + data, hashlib.sha256).hexdigest()[:32]


def _knows(login: str, ip: str) -> bool:
    account = User.objects.filter(kind=User.Kind.PANEL, email=login).first()
    if account is None:
        return False
    signed_in = AuditEntry.objects.filter(
        subject_type=User._meta.model_name, subject_id=account.pk, action=SIGNED_IN, at__gt=timezone.now() - KNOWN_FOR
    )
    return network_of(ip) in {network_of(each or "") for each in signed_in.values_list("ip", flat=True)[:MOST_KNOWN]}


# Without authd


def _by_the_database(login: str, ip: str) -> Answer:
    now = timezone.now()
    account, network = _digest(_same(login)), network_of(ip)
    concerned = Q(account=account) | Q(network=network) if network else Q(account=account)
    rows = WrongSignIn.objects.filter(concerned, at__gt=now - timedelta(seconds=WINDOW_S)).order_by("-pk")
    counts = Lockouts()
    for row in reversed(list(rows[:MOST_READ])):
        counts.failed(row.account.encode(), row.ip or "", bytes.fromhex(row.guess), row.at.timestamp())
    lock = counts.locked(account.encode(), ip, now.timestamp())
    if lock is None:
        return Answer(Standing.OPEN)
    standing = Standing.STRANGERS if lock.spares_known else Standing.LOCKED
    return Answer(standing, counts.opens_in_s(account.encode(), ip, now.timestamp()))


@transaction.atomic
def _keep(row: WrongSignIn) -> None:
    row.at = timezone.now()
    row.save(force_insert=True)
    over = Q(at__lt=row.at - timedelta(seconds=WINDOW_S)) | Q(pk__lte=row.pk - MOST_ROWS)
    WrongSignIn.objects.filter(over).delete()
