"""A new password for who forgot it: a link by mail to the account's address, for one use within an hour.

Who asks learns nothing of which accounts exist: the answer is the same, and so is the time it takes.
Links begin with the address in the settings, never with the Host that a browser sent. The second
factor, if there is one, is asked for at the sign-in as always. No link goes to an address in a
domain that came here after the account was made: whoever makes mailboxes and aliases there would
read it, and must not thereby enter the account (DESIGN §4).
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from panel.mailboxes.language import language_of
from panel.operations.services import is_hosted
from panel.rules.lockout import network_of
from panel.sending import letters
from panel.sending.letters import Aside, Letter, Link, Purpose, Words
from panel.tenants import audit
from panel.tenants.changes import ServiceError, hash_password
from panel.tenants.models import PasswordReset, User
from panel.tenants.services import set_account_password

LIFE = timedelta(hours=1)
WINDOW = timedelta(hours=1)
MOST_OF_ACCOUNT = 3  # letters to one address in an hour
MOST_OF_NETWORK = 20  # requests of one network
MOST_ROWS = 10_000  # the oldest go first


class TooMany(ServiceError):
    """This network asked too often; `wait_s` until it may again."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(_("Too many requests came from your network."))
        self.wait_s = wait_s


def ask(email: str, *, ip: str | None, link: Callable[[str], str]) -> None:
    """Send the link if there is such an account; `link` makes the path of a token. Raises TooMany."""
    email, now = email.strip().lower()[:320], timezone.now()
    network = network_of(ip or "")
    recent = PasswordReset.objects.filter(at__gt=now - WINDOW)
    of_network = recent.filter(network=network) if network else recent.none()
    if of_network.count() >= MOST_OF_NETWORK:
        oldest = of_network.order_by("pk").values_list("at", flat=True)[0]
        raise TooMany(max(1.0, (oldest + WINDOW - now).total_seconds()))
    token = secrets.token_urlsafe(24)
    row = PasswordReset(at=now, network=network, account=_digest(email))
    with transaction.atomic():
        account = User.objects.filter(kind=User.Kind.PANEL, email=email, is_active=True).first()
        may = account is not None and recent.filter(account=row.account).count() < MOST_OF_ACCOUNT
        if account and may and is_hosted(email):
            audit.record(
                account, "account.password_reset_refused", account, tenant=None, reason="its domain is hosted here",
                ip=ip,
            )
        elif account and may:
            sent = letters.send(
                str(account.email), language_of(account), partial(_letter, account, ip, link(token)),
                purpose=Purpose.RESET, now=now, within=LIFE,
            )
            if sent:
                row.user, row.token = account, _digest(token)
                audit.record(account, "account.password_reset_asked", account, tenant=None, ip=ip)
        row.save(force_insert=True)
        over = Q(at__lt=now - max(WINDOW, LIFE)) | Q(pk__lte=row.pk - MOST_ROWS)
        PasswordReset.objects.filter(over).delete()


def _letter(account: User, ip: str | None, path: str) -> Letter:
    hostname, email = letters.cleaned(settings.ENVIRONMENT.hostname), letters.cleaned(account.email, 254)
    return Letter(_("Choose a new password"), (
        Words(_("Somebody asked for a new password for the account {email} on {hostname}.").format(
            email=email, hostname=hostname
        )),
        Words(_("If that was you, open this within an hour and choose one:")),
        Link(_("Choose a new password"), letters.url(path)),
        Aside(_(
            "If it wasn't you, nothing has changed and you need not do anything. It was asked for from {ip}."
        ).format(ip=ip or _("an unknown address"))),
    ))


def of(token: str) -> User | None:
    """Whose password the token may set now."""
    reset = _open(token).select_related("user").first()
    return reset.user if reset else None


def set_password(token: str, password: str, *, ip: str | None) -> User:
    """Use the token up for a new password; the account's sessions end. Raises ServiceError."""
    account = of(token)
    if account is None:
        raise ServiceError(_("This link was used already, or is older than an hour."))
    hashed = hash_password(password, account)
    with transaction.atomic():
        if not _open(token).update(token=""):
            raise ServiceError(_("This link was used already, or is older than an hour."))
        set_account_password(account, hashed, actor=account, reason="by a link sent to its address", ip=ip)
    return account


def _open(token: str) -> QuerySet[PasswordReset]:
    # Of this table alone: an update through a join would let two through at once (PostgreSQL looks again
    # only at the row's own columns). A closed account's links are void by its closing.
    return PasswordReset.objects.filter(token=_digest(token), at__gt=timezone.now() - LIFE)


def _digest(text: str) -> str:
    """Tells one text from another; without the secret key it says nothing of it."""
    data = text.encode("utf-8", "surrogatepass")
    return hmac.new(settings.SECRET_KEY.encode(), b"reset" + data, hashlib.sha256).hexdigest()[:40]
