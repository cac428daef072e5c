"""Passkeys of panel accounts and of persons with a mailbox (WebAuthn level 2): beside the password, or instead.

Decides what is a valid answer of an authenticator, by py_webauthn; the pages are passkey_pages.py's.
A challenge is kept in the session, is asked for when the button is pressed, and opens once. Name and
origin that keys are bound to (§13.4.9) come from POSTHOUSE_URL, never from the Host that a browser
sent. Attestation isn't asked for: any maker's device will do.
"""

import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import webauthn
from cryptography.exceptions import UnsupportedAlgorithm
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from panel.tenants.changes import Gone, ServiceError, lock, one_line, taken_means
from panel.tenants.models import Passkey, SecondFactor, User
from panel.tenants.sign_in import second_factor, whose

LIFE_S = 5 * 60  # of a challenge; the browser's own limit is the same
MOST_OF_ONE = 20
MOST_ANSWER = 20_000  # characters; without attestation an answer has some 1,500
MOST_PUBLIC_KEY = 2000  # bytes; RSA of 4096 bits takes 530
MOST_NAME = 100
WRONG: Any = gettext_lazy("This passkey didn't open it. Try once more, or another way.")
ADD_AGAIN: Any = gettext_lazy("The passkey didn't come through in time or unharmed. Try once more.")

_CHALLENGES = "passkey_challenges"  # in the session, by purpose: the challenge, and when it was made
# What its parsers raise besides, when a browser sends nonsense.
_NONSENSE = (
    WebAuthnException, UnsupportedAlgorithm, ValueError, TypeError, LookupError, AttributeError,
    ArithmeticError, RecursionError,
)


class Purpose(StrEnum):
    ADD = "add"
    PROVE = "prove"  # by who is signed in
    STEP = "step"  # after the password
    ALONE = "alone"  # instead of it


@dataclass(frozen=True, slots=True)
class Site:
    """What passkeys of this installation are bound to."""

    name: str  # the RP ID
    origin: str


def site() -> Site | None:
    """None where browsers have no passkeys: at an IP address, or without HTTPS."""
    parts = urlsplit(settings.ENVIRONMENT.url)
    name, port = parts.hostname or "", parts.port
    is_address = ":" in name or name.replace(".", "").isdigit()
    if is_address or (parts.scheme != "https" and name != "localhost"):
        return None
    usual = {"https": 443, "http": 80}[parts.scheme]
    return Site(name, f"{parts.scheme}://{name}{f':{port}' if port and port != usual else ''}")


def of(account: User) -> list[Passkey]:
    return list(Passkey.objects.filter(factor__user=account))


# Asking


def to_add(request: HttpRequest, account: User) -> str:
    """What the browser needs to make a passkey, as JSON. Raises ServiceError."""
    here = _site()
    asked = webauthn.generate_registration_options(
        rp_id=here.name, rp_name=f"Posthouse {settings.ENVIRONMENT.hostname}", user_name=whose.name_of(account),
        user_display_name=account.name or whose.name_of(account), user_id=_handle(account), timeout=LIFE_S * 1000,
        challenge=_new_challenge(request, Purpose.ADD), exclude_credentials=_named(of(account)),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.PREFERRED
        ),
    )
    return webauthn.options_to_json(asked)


def to_use(request: HttpRequest, purpose: Purpose, account: User | None) -> str:
    """What the browser needs to use one: of this account, or whichever it has for us. Raises ServiceError."""
    asked = webauthn.generate_authentication_options(
        rp_id=_site().name, challenge=_new_challenge(request, purpose), timeout=LIFE_S * 1000,
        allow_credentials=_named(of(account)) if account else [],
        user_verification=_verification(purpose),
    )
    return webauthn.options_to_json(asked)


def _verification(purpose: Purpose) -> UserVerificationRequirement:
    # Alone it must be two factors: the device, and the finger or PIN that it asks for.
    alone = purpose is Purpose.ALONE
    return UserVerificationRequirement.REQUIRED if alone else UserVerificationRequirement.PREFERRED


def _named(passkeys: list[Passkey]) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=base64url_to_bytes(each.credential_id),
            transports=[AuthenticatorTransport(one) for one in each.transports],
        )
        for each in passkeys
    ]


def _site() -> Site:
    here = site()
    if here is None:
        raise ServiceError(_("There are no passkeys at this address of the panel."))
    return here


def _handle(account: User) -> bytes:
    """How authenticators know the account (§14.6.1): it says nothing of who that is."""
    return hmac.digest(settings.SECRET_KEY.encode(), f"passkeys of {account.pk}".encode(), hashlib.sha256)


def _new_challenge(request: HttpRequest, purpose: Purpose) -> bytes:
    challenge = webauthn.helpers.generate_challenge()
    made = {purpose.value: [bytes_to_base64url(challenge), time.time()]}
    request.session[_CHALLENGES] = {**request.session.get(_CHALLENGES, {}), **made}
    return challenge


def spent(request: HttpRequest, purpose: Purpose) -> bytes | None:
    """The challenge of this session, which is then used up; None when there is none, or it is too old."""
    waiting = dict(request.session.get(_CHALLENGES, {}))
    challenge, at = waiting.pop(purpose.value, ("", 0.0))
    if not challenge:
        return None
    request.session[_CHALLENGES] = waiting
    return base64url_to_bytes(challenge) if 0 <= time.time() - at < LIFE_S else None


# Adding and removing


def add(
    account: User, answer: str, challenge: bytes | None, *, name: str, keep: str | None = None, ip: str | None = None
) -> list[str]:
    """Give the account the passkey that the browser made. The recovery codes, when it is the first second factor.

    Raises ServiceError. `keep`: see second_factor.begun.
    """
    name = one_line(name, "name", most=MOST_NAME, required=True)
    made, here = _read(answer), _site()
    if challenge is None or made is None:
        raise ServiceError(str(ADD_AGAIN))
    try:
        verified = webauthn.verify_registration_response(
            credential=made, expected_challenge=challenge, expected_rp_id=here.name, expected_origin=here.origin,
        )
    except _NONSENSE:
        raise ServiceError(str(ADD_AGAIN)) from None
    if len(verified.credential_public_key) > MOST_PUBLIC_KEY or len(verified.credential_id) > 1023:
        raise ServiceError(str(ADD_AGAIN))
    with transaction.atomic():
        factor, codes = second_factor.begun(account, keep=keep)
        if factor.passkeys.count() >= MOST_OF_ONE:
            raise ServiceError(_("An account has {most} passkeys at most.").format(most=MOST_OF_ONE))
        with taken_means(_("This passkey is here already."), ""):
            Passkey.objects.create(
                factor=factor, credential_id=bytes_to_base64url(verified.credential_id), name=name,
                public_key=verified.credential_public_key, sign_count=verified.sign_count,
                transports=_transports(made),
            )
        whose.record(account, "passkey_added", actor=account, after={"passkey": name}, ip=ip)
    return codes


@transaction.atomic
def rename(account: User, passkey: Passkey, name: str, *, ip: str | None = None) -> None:
    """Call it something else. Raises ServiceError."""
    name = one_line(name, "name", most=MOST_NAME, required=True)
    before = lock(passkey).name
    if before != name and Passkey.objects.filter(pk=passkey.pk, factor__user=account).update(name=name):
        told = {"before": {"passkey": before}, "after": {"passkey": name}}
        whose.record(account, "passkey_renamed", actor=account, **told, ip=ip)


@transaction.atomic
def remove(account: User, passkey: Passkey, *, keep: str | None = None, ip: str | None = None) -> bool:
    """Take it away; with the last one and no app the second factor goes too. Whether one is left.

    Raises ServiceError: who must have a second factor keeps the last. `keep`: see second_factor.remove.
    """
    factor = SecondFactor.objects.select_for_update().filter(user=account).first()
    if factor is None or not factor.passkeys.filter(pk=passkey.pk).delete()[0]:
        raise Gone(_("This passkey is no longer here."))
    whose.record(account, "passkey_removed", actor=account, before={"passkey": passkey.name}, ip=ip)
    if factor.has_app or factor.passkeys.exists():
        return True
    second_factor.remove(account, keep=keep, actor=account, ip=ip)
    return False


def _transports(made: dict[str, Any]) -> list[str]:
    response = made.get("response")
    named = response.get("transports") if isinstance(response, dict) else None
    return [each.value for each in AuthenticatorTransport if isinstance(named, list) and each.value in named]


# Using


def take(
    answer: str, challenge: bytes | None, *, account: User | None, ip: str | None = None
) -> Passkey | None:
    """The passkey whose answer this is, when it opens: for this account, or (None) by itself for whose it is.

    By itself it must have asked for finger, face or PIN. None: it doesn't open.
    """
    given, here = _read(answer), site()
    passkey = _found(given)
    if given is None or passkey is None or challenge is None or here is None:
        return None
    owner = passkey.factor.user
    if not owner.is_active or (account is not None and owner.pk != account.pk):
        return None
    said = _handle_in(given)
    # Alone it says whose it is; after the password it need not (§7.2, step 6).
    if said != bytes_to_base64url(_handle(owner)) and (said or account is None):
        return None
    try:
        verified = webauthn.verify_authentication_response(
            credential=given, expected_challenge=challenge, expected_rp_id=here.name, expected_origin=here.origin,
            credential_public_key=bytes(passkey.public_key), credential_current_sign_count=0,
            require_user_verification=account is None,
        )
    except _NONSENSE:
        return None
    return passkey if _counted(passkey, verified.new_sign_count, challenge, ip) else None


def _counted(passkey: Passkey, count: int, challenge: bytes, ip: str | None) -> bool:
    """Whether the count has grown (§7.2, step 21) and this challenge is answered for the first time."""
    digest = hashlib.sha256(challenge).hexdigest()
    grown = Q(sign_count__lt=count) if count else Q(sign_count=0)
    with transaction.atomic():
        rows = Passkey.objects.filter(grown, pk=passkey.pk).exclude(challenge=digest)
        if rows.update(sign_count=count, challenge=digest, used_at=timezone.now()):
            return True
        # Signed by the right key, and yet used before, or elsewhere: there are two of it.
        whose.record(
            passkey.factor.user, "passkey_refused", actor=None, after={"passkey": passkey.name},
            reason="it was used again, or its counter ran back: there may be a copy", ip=ip,
            by="sign-in",
        )
    return False


def login_of(answer: str) -> str:
    """Under which name the lockouts count it: the account's, or one for all that is nobody's."""
    passkey = _found(_read(answer))
    return whose.name_of(passkey.factor.user) if passkey else "passkey"


def guess(answer: str) -> str:
    """A wrong answer as the lockouts count it."""
    return "passkey " + hashlib.sha256(answer.encode("utf-8", "surrogatepass")).hexdigest()


def _read(answer: str) -> dict[str, Any] | None:
    if len(answer) > MOST_ANSWER:
        return None
    try:
        given = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def _found(given: dict[str, Any] | None) -> Passkey | None:
    named = given.get("id") if given else None
    if not isinstance(named, str) or "\x00" in named:
        return None
    return Passkey.objects.select_related("factor__user").filter(credential_id=named).first()


def _handle_in(given: dict[str, Any]) -> Any:
    response = given.get("response")
    return response.get("userHandle") if isinstance(response, dict) else None
