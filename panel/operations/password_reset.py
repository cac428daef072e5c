"""A new password for who forgot it: a link by mail, for one use within an hour.

An account's goes to the account's address, a mailbox's to its recovery address, if it has one.
Who asks learns nothing of which accounts and mailboxes exist: the answer is the same, and so is the time it takes.
Links begin with the address in the settings, never with the Host that a browser sent. The second
factor, if there is one, is asked for at the sign-in as always. No link goes to an address in a
domain that came here after the account was made: whoever makes mailboxes and aliases there would
read it, and must not thereby enter the account (DESIGN §4). A mailbox that opens nothing now, being
suspended, closed or its main password frozen, is sent no link either, and one that was sent opens nothing.
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

from panel.domains.models import Proof
from panel.mailboxes import services as mailboxes
from panel.mailboxes.language import language_of
from panel.mailboxes.main_passwords import credential_of, main_passwords, may_open
from panel.mailboxes.models import Mailbox
from panel.operations.services import is_hosted
from panel.rules.lockout import network_of
from panel.sending import letters
from panel.sending.letters import Aside, Letter, Link, Purpose, Words
from panel.tenants import audit
from panel.tenants.changes import ServiceError, hash_password, lock
from panel.tenants.models import PasswordReset, User
from panel.tenants.services import set_account_password
from panel.tenants.sign_in import sessions

LIFE = timedelta(hours=1)
WINDOW = timedelta(hours=1)
MOST_OF_ACCOUNT = 3  # letters for one account or mailbox in an hour
MOST_OF_NETWORK = 20  # requests of one network
MOST_ROWS = 10_000  # the oldest go first
BY_LINK = "by a link sent to its address"  # as the audit log has it


class TooMany(ServiceError):
    """This network asked too often; `wait_s` until it may again."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(_("Too many requests came from your network."))
        self.wait_s = wait_s


def ask(email: str, *, ip: str | None, link: Callable[[str], str]) -> None:
    """Send the link if there is such an account or mailbox; `link` makes the path of a token. Raises TooMany."""
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
        mailbox = _recoverable(email, ip)
        if mailbox:
            row.account = _digest(str(mailbox))  # in whichever way it was written
        may = recent.filter(account=row.account).count() < MOST_OF_ACCOUNT
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
        # Locked: whoever changes the address or the password meanwhile finds the link, and makes it void.
        if mailbox and may and not row.token and lock(mailbox).recovery == mailbox.recovery:
            sent = letters.send(
                mailbox.recovery, language_of(mailbox), partial(_letter_of_mailbox, mailbox, ip, link(token)),
                purpose=Purpose.RESET, now=now, within=LIFE,
            )
            if sent:
                row.user, row.token = mailbox.person, _digest(token)
                audit.record(
                    mailbox.person, "mailbox.password_reset_asked", mailbox, tenant=mailbox.address.tenant, ip=ip
                )
        row.save(force_insert=True)
        over = Q(at__lt=now - max(WINDOW, LIFE)) | Q(pk__lte=row.pk - MOST_ROWS)
        PasswordReset.objects.filter(over).delete()


def _recoverable(email: str, ip: str | None) -> Mailbox | None:
    """The mailbox with this address, if a link to its recovery address would set its password now."""
    credential = credential_of(email)
    if credential is None or not credential.mailbox.recovery or not may_open(credential, ip):
        return None
    # In a domain that nobody has proved a mailbox may bear anybody's address.
    return None if credential.mailbox.address.domain.proof == Proof.PENDING else credential.mailbox


def _letter_of_mailbox(mailbox: Mailbox, ip: str | None, path: str) -> Letter:
    name = letters.cleaned(mailbox, 320)
    return Letter(_("Choose a new password for {mailbox}").format(mailbox=name), (
        Words(_("Somebody asked for a new password for the mailbox {mailbox} on {hostname}.").format(
            mailbox=name, hostname=letters.cleaned(settings.ENVIRONMENT.hostname)
        )),
        Words(_("You get this because the mailbox names yours as its recovery address.")),
        Words(_("If that was you, open this within an hour and choose one:")),
        Link(_("Choose a new password"), letters.url(path)),
        Aside(_(
            "If it wasn't you, nothing has changed and you need not do anything. It was asked for from {ip}."
        ).format(ip=ip or _("an unknown address"))),
    ))


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


def of(token: str, *, ip: str | None) -> User | Mailbox | None:
    """Whose password the token may set now: a panel account, or a mailbox."""
    reset = _open(token).select_related("user").first()
    if reset is None or reset.user is None or reset.user.kind == User.Kind.PANEL:
        return reset.user if reset else None
    credential = main_passwords().filter(mailbox__person=reset.user).first()
    return credential.mailbox if credential and may_open(credential, ip) else None


def set_password(token: str, password: str, *, ip: str | None) -> User | Mailbox:
    """Use the token up for a new password; whose it is is signed out everywhere. Raises ServiceError."""
    whose = of(token, ip=ip)
    if whose is None:
        raise _over()
    hashed = hash_password(password, whose) if isinstance(whose, User) else mailboxes.hash_main(password, whose)
    with transaction.atomic():
        if isinstance(whose, Mailbox):
            lock(whose)  # before the link, as whoever sets its password otherwise
        if not _open(token).update(token=""):
            raise _over()
        if isinstance(whose, User):
            set_account_password(whose, hashed, actor=whose, reason=BY_LINK, ip=ip)
        else:
            mailboxes.set_password(
                whose, hashed, reason="by a link sent to its recovery address", actor=whose.person, ip=ip
            )
            sessions.end_all(whose.person, reason="its password was changed", actor=whose.person, ip=ip)
    return whose


def _over() -> ServiceError:
    return ServiceError(_("This link was used already, or is older than an hour."))


def _open(token: str) -> QuerySet[PasswordReset]:
    # Of this table alone: an update through a join would let two through at once (PostgreSQL looks again
    # only at the row's own columns). A closed account's links are void by its closing.
    return PasswordReset.objects.filter(token=_digest(token), at__gt=timezone.now() - LIFE)


def _digest(text: str) -> str:
    """Tells one text from another; without the secret key it says nothing of it."""
    data = text.encode("utf-8", "surrogatepass")
    return hmac.new(settings.SECRET_KEY.encode(), b"reset" + data, hashlib.sha256).hexdigest()[:40]
