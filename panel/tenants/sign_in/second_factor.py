"""The second factor of panel accounts and of persons with a mailbox: codes of an app, recovery codes in its place.

Passkeys (passkeys.py) are one as well, beside the app or alone; the recovery codes are for both.

The codes are RFC 6238's by django-otp's arithmetic. Its devices are not used: they keep secrets and
recovery codes readable in the database, and two requests at once may both pass with one code. Here
a code is taken by a conditional update, so it opens once.
"""

import base64
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode

import segno
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django_otp.oath import hotp

from panel.tenants import audit
from panel.tenants.changes import AlreadySo, ServiceError, lock, one_line, owners_alone
from panel.tenants.models import Membership, PanelSession, RecoveryCode, SecondFactor, User
from panel.tenants.sign_in import whose

STEP_S = 30
TOLERANCE = 1  # steps before and after now (RFC 6238 §5.2)
DIGITS = 6
RECOVERY_CODES = 10
WRONG: Any = gettext_lazy("This code isn't right, or was used already. The app shows a new one every 30 seconds.")

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U
_MISREAD = str.maketrans("OIL", "011")
_log = logging.getLogger("posthouse.panel")


@dataclass(frozen=True, slots=True)
class Opened:
    """By what a step was passed. `left`: recovery codes that are left, None when none was used."""

    left: int | None = None
    passkey: str = ""  # its name


def is_required(account: User) -> bool:
    """Whether it may do nothing before it has a second factor: an account, or the person of a mailbox."""
    if account.kind == User.Kind.PERSON:
        return bool(account.mailbox.address.tenant.people_second_factor_required)
    return account.second_factor_required or (settings.ENVIRONMENT.staff_second_factor and account.is_staff)


def is_kept(account: User) -> bool:
    """Whether the last one can't be taken away by its owner: the account must have it, or one of its tenants asks."""
    return is_required(account) or Membership.objects.filter(user=account, tenant__second_factor_required=True).exists()


def of(account: User) -> SecondFactor | None:
    return SecondFactor.objects.filter(user=account).first()


# Setting up


def new_secret() -> str:
    """160 random bits as base32, as apps take it (RFC 4226 §4)."""
    return base64.b32encode(secrets.token_bytes(20)).decode()


def seal(secret: str) -> str:
    """The secret as it may be stored."""
    return _seal().encrypt(secret.encode()).decode()


def unseal(sealed: str) -> str | None:
    """The secret; None when it was sealed under another secret key."""
    try:
        return _seal().decrypt(sealed.encode()).decode()
    except InvalidToken:
        return None


def uri(account: User, secret: str) -> str:
    """What the QR code says, by the apps' convention (otpauth)."""
    issuer = f"Posthouse {settings.ENVIRONMENT.hostname}"
    query = urlencode({"secret": secret, "issuer": issuer}, quote_via=quote)
    return f"otpauth://totp/{quote(issuer)}:{quote(whose.name_of(account))}?{query}"


def qr_code(text: str) -> str:
    """An SVG, black on white in either theme: cameras want it so."""
    code = segno.make(text, error="m", micro=False)
    return code.svg_inline(border=2, dark="#000", light="#fff", omitsize=True, svgclass="ph-qr", lineclass=None)


def add(
    account: User, secret: str, code: str, *, keep: str | None = None, ip: str | None = None
) -> list[str]:
    """Give the account this second factor, which `code` proves to be in an app.

    The recovery codes, shown once; none when passkeys came before it. `keep`: see `begun`.
    """
    step = _step_of(secret, code, after=0)
    if step is None:
        raise ServiceError(str(WRONG), "code")
    with transaction.atomic():
        factor, codes = begun(account, keep=keep)
        without_an_app = SecondFactor.objects.filter(pk=factor.pk, secret="")
        if not without_an_app.update(secret=seal(secret), last_step=step):
            raise ServiceError(_("The account has an authenticator app already: remove that one first."))
        whose.record(account, "second_factor_added", actor=account, ip=ip)
    return codes


def begun(account: User, *, keep: str | None) -> tuple[SecondFactor, list[str]]:
    """The account's second factor, locked, and the recovery codes that are shown once when it has none yet.

    Within a transaction that adds an app or a passkey to it. With the first, sessions that were opened without
    it end, but for the one of the key `keep`.
    """
    _hold(account)  # as a sign-in that is just being completed does (has_come)
    factor, made = SecondFactor.objects.get_or_create(user=account)
    factor = lock(factor)
    if not made:
        return factor, []
    _end_sessions(account, but=keep)
    whose.programs_changed(account)
    return factor, _new_recovery_codes(factor)


def has_come(account: User) -> bool:
    """Whether the account has a second factor by now; within the transaction in which somebody comes in without.

    Until its end none is set up: what sets one up ends the session that was begun before.
    """
    _hold(account)
    return of(account) is not None


def _hold(account: User) -> None:
    # A request's account may be one that Django reads late, so not changes.lock.
    User.objects.select_for_update(of=("self",), no_key=True).filter(pk=account.pk).first()


def renew_recovery_codes(account: User, *, ip: str | None = None) -> list[str]:
    """Ten new recovery codes in place of the old ones; they are shown once."""
    with transaction.atomic():
        factor = SecondFactor.objects.select_for_update().filter(user=account).first()
        if factor is None:
            raise ServiceError(_("The account has no second factor."))
        factor.recovery_codes.all().delete()
        codes = _new_recovery_codes(factor)
        whose.record(account, "recovery_codes_renewed", actor=account, ip=ip)
    return codes


@transaction.atomic
def remove(
    account: User, *, keep: str | None = None, actor: User | None, reason: str = "", ip: str | None = None
) -> None:
    """Take the second factor away, with its passkeys.

    Who must have one can't do it alone; another account or the command line can. The sessions end, but for the one
    of the key `keep` in which its owner does it: opened with it, they would go on as if it were there, on a device
    that was lost as well.
    """
    owners_alone(actor, account)
    reason = one_line(reason, "reason", most=audit.MOST_REASON)
    if actor == account and is_kept(account):
        raise ServiceError(_("This account must have a second factor."))
    deleted, _rows = SecondFactor.objects.filter(user=account).delete()
    if not deleted:
        raise AlreadySo(_("The account has no second factor."))
    _end_sessions(account, but=keep)
    whose.record(account, "second_factor_removed", actor=actor, reason=reason, ip=ip)
    whose.programs_changed(account)


@transaction.atomic
def remove_app(account: User, *, keep: str | None = None, ip: str | None = None) -> bool:
    """Take the authenticator app away; passkeys stay. Whether a second factor is left. `keep`: see `remove`."""
    factor = SecondFactor.objects.select_for_update().filter(user=account).first()
    if factor is None or not factor.has_app:
        raise AlreadySo(_("The account has no authenticator app."))
    if not factor.passkeys.exists():
        remove(account, keep=keep, actor=account, ip=ip)
        return False
    SecondFactor.objects.filter(pk=factor.pk).update(secret="")
    whose.record(account, "authenticator_removed", actor=account, ip=ip)
    return True


def _end_sessions(account: User, *, but: str | None) -> None:
    PanelSession.objects.filter(user=account).exclude(pk=but or "").delete()


def _new_recovery_codes(factor: SecondFactor) -> list[str]:
    codes = ["".join(secrets.choice(_ALPHABET) for _ in range(16)) for _ in range(RECOVERY_CODES)]
    RecoveryCode.objects.bulk_create(RecoveryCode(factor=factor, digest=_digest(code)) for code in codes)
    return ["-".join(code[at:at + 4] for at in range(0, 16, 4)) for code in codes]


# Using


def take(account: User, code: str, *, ip: str | None = None) -> Opened | None:
    """Use up a code of the app, or a recovery code. None: it is not one, or not any more."""
    factor = of(account)
    if factor is None:
        return None
    code = "".join(code.split())
    if code.isascii() and code.isdigit() and len(code) == DIGITS:
        return Opened() if _take_step(factor, code) else None
    return _take_recovery_code(account, factor, code, ip)


def guess(code: str) -> str:
    """A wrong code as the lockouts count it: again in the next 30 seconds, when the same could be right."""
    return f"code {int(time.time()) // STEP_S} {code}"


def _take_step(factor: SecondFactor, code: str) -> bool:
    if not factor.has_app:
        return False
    secret = unseal(factor.secret)
    if secret is None:
        _log.error("the %s was stored under another secret key: reset it (manage.py account second-factor)", factor)
        return False
    step = _step_of(secret, code, after=factor.last_step)
    if step is None:
        return False
    with transaction.atomic():
        return bool(SecondFactor.objects.filter(pk=factor.pk, last_step__lt=step).update(last_step=step))


def _take_recovery_code(account: User, factor: SecondFactor, code: str, ip: str | None) -> Opened | None:
    digest = _digest(code.replace("-", "").upper().translate(_MISREAD))
    with transaction.atomic():
        unused = RecoveryCode.objects.filter(factor=factor, used_at=None)
        if not unused.filter(digest=digest).update(used_at=timezone.now()):
            return None
        left = unused.count()
        whose.record(account, "recovery_code_used", actor=account, after={"left": left}, ip=ip)
    return Opened(left)


def _step_of(secret: str, code: str, *, after: int) -> int | None:
    """The 30 seconds that the code belongs to, if it is one of now and later than `after`."""
    code = "".join(code.split())
    key, now = base64.b32decode(secret), int(time.time()) // STEP_S
    for step in range(max(now - TOLERANCE, after + 1), now + TOLERANCE + 1):
        if secrets.compare_digest(f"{hotp(key, step, DIGITS):0{DIGITS}}".encode(), code.encode()):
            return step
    return None


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def _seal() -> Fernet:
    return _seal_of(settings.SECRET_KEY)


@lru_cache(maxsize=1)
def _seal_of(key: str) -> Fernet:
    digest = hashlib.blake2b(key.encode(), digest_size=32, person=b"second factor").digest()
    return Fernet(base64.urlsafe_b64encode(digest))
