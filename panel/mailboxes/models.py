"""Addresses, and what stands behind them: mailboxes with their rules, credentials and logins, and aliases."""

import secrets

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

from panel.database.indexed import Folded
from panel.domains.models import Domain
from panel.rules import addresses
from panel.tenants.models import STATUS_CHOICES, StatusField, Tenant, User, in_grace, one_of
from panel.tenants.scoping import ScopedQuerySet


def _trace(to):
    """A foreign key of a table that grows with traffic: indexed by hand, not enforced by the database."""
    return models.ForeignKey(
        to, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+", null=True
    )


class Address(models.Model):
    """local_part@domain, canonical and unique, and the tenant that holds it.

    In a tenant's own domain that is the domain's tenant; in a shared domain each
    address has its own. An empty local part is the domain's catch-all. Mailbox and
    Alias each own one row, so that the database refuses a collision.
    """

    to_tenant = "tenant"

    local_part = models.CharField(max_length=64, blank=True)
    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="addresses")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="addresses")

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["domain", "local_part"]
        constraints = [models.UniqueConstraint(fields=["domain", "local_part"], name="address_once")]
        indexes = [
            models.Index(Folded("local_part"), name="address_local_part"),  # as its own: the order is that of bytes
        ]

    def __str__(self):
        # As it is typed: with the quotes that a space or an "@" before the domain needs (RFC 5321 §4.1.2).
        return str(addresses.Address(self.local_part or "*", self.domain.name))


BY_ADDRESS = ("domain_name", "local_part", "pk")  # the order of lists of what stands at addresses


class AtAddress(models.Model):
    """What stands at an address, with the address's parts and its tenant in its own row.

    An address is never another's and never renamed, so they can't part. They are here for the lists: an index of
    one table gives a page in the order of the addresses, however deep, and a tenant's part of it; with the three
    tables joined a database reads and sorts all of them first. `standing_at` gives the four.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.DO_NOTHING, related_name="+", db_index=False, editable=False)
    domain_name = models.CharField(max_length=253, editable=False)
    local_part = models.CharField(max_length=64, blank=True, editable=False)

    class Meta:
        abstract = True

    @staticmethod
    def standing_at(address):
        """The fields with which a row is made; the address has its domain and tenant."""
        return {
            "address": address, "tenant": address.tenant, "domain_name": address.domain.name,
            "local_part": address.local_part,
        }


def in_order(noun, *narrowed_by):
    """An index that gives a page of BY_ADDRESS by itself, of what it is narrowed by or ordered by before."""
    name = "_".join([noun, *(narrowed_by or ("address",)), "order"])
    return models.Index(fields=[*narrowed_by, *BY_ADDRESS[:-1], "id"], name=name)


def by_local_part(noun):
    """The same where the local part comes first."""
    return models.Index(fields=["local_part", "domain_name", "id"], name=f"{noun}_local_part")


def new_opaque_id() -> str:
    """A mailbox's folder name: 20 hex digits, never derived from the address."""
    return secrets.token_hex(10)


# Half a million of them summed up still fit into a number of the database's: on SQLite a sum that doesn't fit is an
# error, and one mailbox would take the pages of its tenant, its reseller and the provider with it.
MOST_QUOTA_BYTES = 2**44


class Mailbox(AtAddress):
    """A place where mail is kept, for one person."""

    to_tenant = "tenant"

    address = models.OneToOneField(Address, on_delete=models.PROTECT, related_name="mailbox")
    person = models.OneToOneField(User, on_delete=models.PROTECT, related_name="mailbox", editable=False)
    opaque_id = models.CharField(max_length=20, unique=True, default=new_opaque_id, editable=False)
    name = models.CharField(max_length=100, blank=True)
    quota_bytes = models.PositiveBigIntegerField(gettext_lazy("storage"), null=True, blank=True)
    # Of letters to its person: a code of the settings' LANGUAGES. Empty: never chosen.
    language = models.CharField(max_length=10, blank=True, editable=False)
    # Canonical: where the link goes by which its person chooses another main password. Empty: nowhere. What the
    # person set, `recovery_is_own`, nobody else reads whole.
    recovery = models.CharField(gettext_lazy("recovery address"), max_length=320, blank=True, editable=False)
    recovery_is_own = models.BooleanField(default=False, editable=False)
    status = StatusField()
    status_reason = models.CharField(gettext_lazy("reason"), max_length=500, blank=True)
    grace_ends_at = models.DateTimeField(gettext_lazy("can be restored until"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        verbose_name_plural = gettext_lazy("mailboxes")
        constraints = [one_of("status", STATUS_CHOICES, "mailbox_status_is_known")]
        indexes = [
            in_grace("mailbox_in_grace"), models.Index(Folded("name"), name="mailbox_name"),
            in_order("mailbox"), in_order("mailbox", "tenant"), in_order("mailbox", "status"),
            in_order("mailbox", "name"), by_local_part("mailbox"),
            models.Index(fields=["tenant", "id"], name="mailbox_tenant_newest"),
        ]

    def __str__(self):
        return str(self.address)


class MailboxUsage(models.Model):
    """What a mailbox holds, as far as it is known. Written behind, in batches, by authd.

    Apart from Mailbox: mail that comes and goes is no change of the directory. Without a row
    nothing is known yet.
    """

    to_tenant = "mailbox__tenant"

    mailbox = models.OneToOneField(Mailbox, on_delete=models.CASCADE, primary_key=True, related_name="usage")
    used_bytes = models.BigIntegerField(default=0)
    messages = models.BigIntegerField(default=0)
    known_at = models.DateTimeField(null=True)  # when the numbers last changed
    counted_at = models.DateTimeField(null=True, db_index=True)  # when its files were last counted
    warned_percent = models.PositiveSmallIntegerField(default=0)  # the threshold that its owner was told of

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        verbose_name = gettext_lazy("storage used")
        verbose_name_plural = gettext_lazy("storage used")

    def __str__(self):
        return f"{self.used_bytes} bytes"


class Alias(AtAddress):
    """An address that leads to others, here or elsewhere."""

    to_tenant = "tenant"

    address = models.OneToOneField(Address, on_delete=models.PROTECT, related_name="alias")
    description = models.CharField(max_length=200, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)  # from then on it is as an address that isn't there
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        verbose_name_plural = gettext_lazy("aliases")
        indexes = [
            models.Index(Folded("description"), name="alias_description"),
            in_order("alias"), in_order("alias", "tenant"), by_local_part("alias"),
        ]

    def __str__(self):
        return str(self.address)

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()


class AliasTarget(models.Model):
    """One address that an alias leads to, canonical."""

    to_tenant = "alias__tenant"

    alias = models.ForeignKey(Alias, on_delete=models.CASCADE, related_name="targets")
    target = models.CharField(max_length=320, db_index=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["alias", "target"], name="alias_target_once")]

    def __str__(self):
        return self.target


class Credential(models.Model):
    """Something to log in with: the main password of a mailbox (argon2id), or an app password.

    App secrets are 128 random bits behind a prefix, shown once, kept as SHA-256 hex.
    """

    to_tenant = "mailbox__tenant"

    class Kind(models.TextChoices):
        MAIN = "main", gettext_lazy("main password")
        APP = "app", gettext_lazy("app password")

    mailbox = models.ForeignKey(Mailbox, on_delete=models.CASCADE, related_name="credentials")
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.APP)
    label = models.CharField(max_length=100, blank=True)
    secret = models.CharField(max_length=200, editable=False)
    # Of a main password that was hashed anew: the fingerprint of what was imported. The password
    # is the same, so sessions that began with it go on.
    began_as = models.CharField(max_length=16, blank=True, editable=False)
    # An app password's; the main password opens every protocol.
    scopes = models.JSONField(default=list)
    networks = models.JSONField(default=list, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    frozen_at = models.DateTimeField(null=True, blank=True, editable=False)
    frozen_reason = models.CharField(max_length=500, blank=True)
    last_used_at = models.DateTimeField(null=True, editable=False)
    last_used_ip = models.GenericIPAddressField(gettext_lazy("last used from"), null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["mailbox"], condition=Q(kind="main"), name="credential_one_main"),
            models.UniqueConstraint(fields=["secret"], condition=Q(kind="app"), name="credential_app_secret_once"),
            models.CheckConstraint(name="credential_kind_is_known", condition=Q(kind__in=["main", "app"])),
        ]
        indexes = [
            models.Index(Folded("label"), name="credential_label"),
            # The provider's list in these orders: without, it sorts all of them (26 to 36 ms of 120,000).
            models.Index(fields=["label", "-id"], name="credential_by_label"),
            models.Index(fields=["last_used_at", "-id"], name="credential_by_use"),
            models.Index(fields=["mailbox"], condition=Q(kind="app"), name="credential_app_of"),
            models.Index(
                fields=["frozen_at"], condition=Q(frozen_at__isnull=False), name="credential_frozen"
            ),
        ]
        verbose_name = gettext_lazy("password")

    def __str__(self):
        # The mailserver names it as well, and looks for no translation.
        if get_language() not in (None, "en"):
            return self.words
        return f'app password "{self.label or self.pk}"' if self.kind == self.Kind.APP else "main password"

    @property
    def words(self) -> str:
        """The same in the reader's language; what is kept for later is in English."""
        if self.kind == self.Kind.APP:
            return _("app password “{label}”").format(label=self.label or self.pk)
        return _("main password")


class MailboxLink(models.Model):
    """A panel account that reaches the page of a mailbox, while the main password is the one it knew (links.py)."""

    to_tenant = "mailbox__address__tenant"

    mailbox = models.ForeignKey(Mailbox, on_delete=models.CASCADE, related_name="links")
    account = models.ForeignKey(User, on_delete=models.CASCADE, related_name="mailbox_links")
    began_as = models.CharField(max_length=16)  # a fingerprint of the main password
    created_at = models.DateTimeField(default=timezone.now)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["account", "mailbox"], name="mailbox_link_once")]

    def __str__(self):
        return f"{self.account} reaches {self.mailbox}"


class RecoveryAsked(models.Model):
    """An address that is to become the mailbox's recovery address once its person opened the link sent there.

    The link's token is kept as a digest. `by` is who asked (tenants.decided.Freezer).
    """

    mailbox = models.OneToOneField(Mailbox, on_delete=models.CASCADE, primary_key=True, related_name="recovery_asked")
    address = models.CharField(max_length=320)
    by = models.PositiveSmallIntegerField()
    sent_at = models.DateTimeField()
    token = models.CharField(max_length=40)

    def __str__(self):
        return f"recovery address of {self.mailbox}"


class MailRules(models.Model):
    """What a mailbox does with its mail before it is stored. Without a row: nothing but storing it."""

    to_tenant = "mailbox__tenant"

    mailbox = models.OneToOneField(Mailbox, on_delete=models.CASCADE, related_name="rules")
    vacation = models.BooleanField(default=False)
    vacation_from = models.DateField(null=True, blank=True)  # days in UTC, both included
    vacation_until = models.DateField(null=True, blank=True)
    vacation_subject = models.CharField(max_length=200, blank=True)
    vacation_text = models.TextField(blank=True)
    vacation_days = models.PositiveSmallIntegerField(default=7)
    forward_to = models.JSONField(default=list, blank=True)  # canonical addresses
    forward_keep = models.BooleanField(default=True)
    junk = models.BooleanField(default=False)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        verbose_name = verbose_name_plural = gettext_lazy("rules")
        constraints = [
            models.CheckConstraint(
                name="vacation_days_are_some", condition=Q(vacation_days__gte=1, vacation_days__lte=365)
            ),
        ]

    def __str__(self):
        return f"rules of {self.mailbox}"


class BlockEntry(models.Model):
    """An address, or a domain with all below it, from which a mailbox with rules takes nothing."""

    to_tenant = "mailbox__tenant"

    mailbox = models.ForeignKey(Mailbox, on_delete=models.CASCADE, related_name="blocked")
    sender = models.CharField(max_length=320)  # canonical

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["sender"]
        verbose_name_plural = gettext_lazy("block entries")
        constraints = [models.UniqueConstraint(fields=["mailbox", "sender"], name="block_entry_once")]

    def __str__(self):
        return self.sender


class VacationAnswer(models.Model):
    """Whom a mailbox has answered, and until when it doesn't again. Written by the mailserver, pruned by it."""

    to_tenant = "mailbox__tenant"

    mailbox = models.ForeignKey(Mailbox, on_delete=models.CASCADE, related_name="vacation_answers", db_index=False)
    sender = models.CharField(max_length=320)  # canonical
    until = models.DateTimeField(db_index=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["mailbox", "sender"], name="vacation_answer_once")]

    def __str__(self):
        return f"{self.mailbox} answered {self.sender}"


class LoginEvent(models.Model):
    """Logins that were alike, as authd saw them: `count` between `at` and `last_at`. Never changed.

    Without a mailbox it is about login names that are none here, or that authd did not look
    up: `login` is then one of them, and no tenant sees it. No foreign key of the database's
    stands here: the table grows with traffic and is pruned by time.
    """

    to_tenant = "tenant"

    class Outcome(models.TextChoices):
        OK = "ok", gettext_lazy("logged in")
        WRONG = "wrong", gettext_lazy("wrong password")
        # The password was right; the client is told that it is wrong.
        REFUSED = "refused", gettext_lazy("frozen, expired or from elsewhere")
        SCOPE = "scope", gettext_lazy("not for this protocol")
        FACTOR = "factor", gettext_lazy("main password, while a second factor is on")  # the client is told the same
        SUSPENDED = "suspended", gettext_lazy("suspended")
        LOCKED = "locked", gettext_lazy("locked after wrong ones")

    at = models.DateTimeField()
    last_at = models.DateTimeField()
    count = models.PositiveIntegerField(default=1)
    tenant = _trace(Tenant)
    mailbox = _trace(Mailbox)
    credential = _trace(Credential)
    credential_text = models.CharField(gettext_lazy("password"), max_length=120, blank=True)  # kept when it is revoked
    login = models.CharField(max_length=320)  # as it was given
    ip = models.GenericIPAddressField(null=True)  # the first one; empty: from many networks
    protocol = models.CharField(max_length=20)
    outcome = models.CharField(max_length=10, choices=Outcome)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = gettext_lazy("login")
        verbose_name_plural = gettext_lazy("logins")
        indexes = [
            models.Index(fields=["mailbox", "-id"]),
            models.Index(fields=["tenant", "-id"]),
            models.Index(fields=["at"]),
            # What the list is narrowed down by, where few of many match.
            models.Index(fields=["outcome", "-id"], name="login_outcome"),
            models.Index(fields=["protocol", "-id"], name="login_protocol"),
            models.Index(fields=["ip", "-id"], name="login_ip"),
            models.Index(Folded("login"), F("id").desc(), name="login_name"),
            models.Index(fields=["last_at"], condition=Q(outcome="locked"), name="login_locked"),
        ]

    def __str__(self):
        return f"{self.login}: {self.get_outcome_display()}"
