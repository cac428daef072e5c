"""Who runs what: panel accounts, tenants, plans, memberships; the audit log; directory changes."""

import secrets

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.database.indexed import Folded
from panel.rules.status import Status
from panel.tenants.scoping import ScopedQuerySet, TenantQuerySet

STATUS_CHOICES = [
    (Status.ACTIVE, gettext_lazy("active")),
    (Status.NO_SENDING, gettext_lazy("no sending")),
    (Status.SUSPENDED, gettext_lazy("suspended")),
    (Status.CLOSED, gettext_lazy("closed")),
]


class StatusField(models.PositiveSmallIntegerField):
    """A Status as a small number; the larger the stricter."""

    def __init__(self, **kwargs):
        kwargs.setdefault("choices", STATUS_CHOICES)
        kwargs.setdefault("default", Status.ACTIVE)
        super().__init__(**kwargs)


def one_of(field, choices, name):
    """A constraint: the database takes only one of the choices' values."""
    values = [getattr(value, "value", value) for value, _name in choices]
    return models.CheckConstraint(name=name, condition=Q(**{f"{field}__in": values}))


def in_grace(name):
    """An index of what is closed, by when its grace period ends: few of many."""
    return models.Index(fields=["grace_ends_at"], condition=Q(grace_ends_at__isnull=False), name=name)


class Plan(models.Model):
    """What a tenant may have. An empty number means unlimited."""

    name = models.CharField(max_length=100, unique=True)
    domains = models.PositiveIntegerField(gettext_lazy("domains"), null=True, blank=True)
    mailboxes = models.PositiveIntegerField(gettext_lazy("mailboxes"), null=True, blank=True)
    aliases = models.PositiveIntegerField(gettext_lazy("aliases"), null=True, blank=True)
    credentials = models.PositiveIntegerField(gettext_lazy("app passwords"), null=True, blank=True)
    # The quotas of a tenant's mailboxes together.
    storage_bytes = models.PositiveBigIntegerField(gettext_lazy("storage"), null=True, blank=True)
    mailbox_hour = models.PositiveIntegerField(gettext_lazy("recipients a mailbox, 1 hour"), null=True, blank=True)
    mailbox_day = models.PositiveIntegerField(gettext_lazy("recipients a mailbox, 24 hours"), null=True, blank=True)
    tenant_hour = models.PositiveIntegerField(gettext_lazy("recipients a tenant, 1 hour"), null=True, blank=True)
    tenant_day = models.PositiveIntegerField(gettext_lazy("recipients a tenant, 24 hours"), null=True, blank=True)
    # Tenants that a tenant on it makes below itself: what makes it a reseller.
    customers = models.PositiveIntegerField(gettext_lazy("customers"), null=True, blank=True, default=0)
    for_customers = models.BooleanField(
        gettext_lazy("for customers of resellers"), default=False,
        help_text=gettext_lazy(
            "A reseller may give it to a customer, if none of its numbers is above the reseller's own."
        ),
    )

    class Meta:
        ordering = ["name"]

    def __str__(self):
        return self.name


def proof_key():
    return secrets.token_hex(16)


class Tenant(models.Model):
    """A company or a reseller's customer; owns domains and addresses."""

    to_tenant = "pk"

    # Unique among its neighbours alone: a refused name would tell a reseller of another one's customers.
    name = models.CharField(max_length=100, db_index=True)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="tenants")
    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="children",
        help_text=gettext_lazy("The reseller whose customer it is, if any."),
    )
    status = StatusField()
    status_reason = models.CharField(gettext_lazy("reason"), max_length=500, blank=True)
    grace_ends_at = models.DateTimeField(gettext_lazy("can be restored until"), null=True, blank=True, editable=False)
    second_factor_required = models.BooleanField(
        gettext_lazy("second factor required"), default=False,
        help_text=gettext_lazy("Until they have one, its members see nothing of it in the console."),
    )
    people_second_factor_required = models.BooleanField(
        gettext_lazy("second factor required of people with mailboxes"), default=False,
        help_text=gettext_lazy(
            "Whoever signs in to a mailbox's pages sets one up first. Mail programs go on until then; from then on "
            "they need an app password."
        ),
    )
    notes = models.TextField(blank=True, help_text=gettext_lazy("For the provider only."))
    # What its proofs in the DNS are derived from: stays when the installation's secret key is changed.
    proof_key = models.CharField(max_length=32, default=proof_key, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            one_of("status", STATUS_CHOICES, "tenant_status_is_known"),
            models.UniqueConstraint(fields=["parent", "name"], name="tenant_name_once"),
            models.UniqueConstraint(fields=["name"], condition=Q(parent=None), name="tenant_name_once_on_top"),
        ]
        indexes = [in_grace("tenant_in_grace")]

    def __str__(self):
        return self.name


class ProviderRole(models.TextChoices):
    NONE = "", gettext_lazy("none")
    SUPPORT = "support", gettext_lazy("support (read only)")
    OPERATOR = "operator", gettext_lazy("operator")
    OWNER = "owner", gettext_lazy("owner")


class UserManager(BaseUserManager):
    def get_by_natural_key(self, username):
        return self.get(email=(username or "").strip().lower(), kind=User.Kind.PANEL)


class User(AbstractBaseUser):
    """Somebody who signs in: a panel account by email, or the person of one mailbox.

    A person has no usable password here, no email and no provider role: whoever may
    reset a mailbox's password must not thereby enter its owner's panel account.
    """

    class Kind(models.TextChoices):
        PANEL = "panel", gettext_lazy("panel account")
        PERSON = "person", gettext_lazy("person with a mailbox")

    kind = models.CharField(max_length=10, choices=Kind, default=Kind.PANEL, editable=False)
    email = models.EmailField(max_length=254, unique=True, null=True)
    name = models.CharField(max_length=100, blank=True)
    provider_role = models.CharField(max_length=10, choices=ProviderRole, blank=True, default=ProviderRole.NONE)
    is_active = models.BooleanField(default=True)
    second_factor_required = models.BooleanField(
        gettext_lazy("second factor required"), default=False,
        help_text=gettext_lazy("Until it has one, the account sees nothing but the page on which one is set up."),
    )
    # Of letters to it: a code of the settings' LANGUAGES. Empty: never chosen.
    language = models.CharField(max_length=10, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    # Sign-ins are events with a place and a time, not one column (and a write at each).
    last_login = None
    # Of a mailbox's person, while a request lasts: the panel account that came by its tie, which the audit log names.
    by_tie: "User | None" = None

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    objects = UserManager()

    class Meta:
        ordering = ["email", "pk"]
        verbose_name = gettext_lazy("account")
        verbose_name_plural = gettext_lazy("accounts")
        constraints = [
            models.CheckConstraint(
                name="user_person_has_no_email_or_role",
                condition=Q(kind="panel", email__isnull=False) | Q(kind="person", email__isnull=True, provider_role=""),
            ),
            one_of("provider_role", ProviderRole.choices, "user_provider_role_is_known"),
        ]
        indexes = [
            # Persons are many, and found by their mailboxes.
            models.Index(Folded("name"), condition=Q(kind="panel"), name="account_name"),
            # Without the persons, of whom there is one a mailbox.
            models.Index(fields=["email"], condition=Q(kind="panel"), name="account_email"),
        ]

    def __str__(self):
        # A person who is signed in comes with the mailbox, and is called by its address.
        mailbox = self._state.fields_cache.get("mailbox")
        return self.email or (str(mailbox) if mailbox else self.name) or _("person {number}").format(number=self.pk)

    @property
    def has_provider_role(self):
        return self.is_active and self.kind == self.Kind.PANEL and self.provider_role != ProviderRole.NONE

    @property
    def is_staff(self):
        """Whether the provider's admin lets this account in: derived from the role, never set."""
        return self.has_provider_role

    @property
    def is_superuser(self):
        return self.has_provider_role and self.provider_role == ProviderRole.OWNER

    def has_perm(self, perm, obj=None):
        """Support views; operators change everything but accounts; owners change everything."""
        if not self.has_provider_role:
            return False
        app, _dot, codename = perm.partition(".")
        if self.provider_role == ProviderRole.OWNER or codename.startswith("view_"):
            return True
        if self.provider_role == ProviderRole.SUPPORT:
            return False
        return not (app == "tenants" and codename.split("_")[-1] in ("user", "membership"))

    def has_perms(self, perm_list, obj=None):
        return all(self.has_perm(perm, obj) for perm in perm_list)

    def has_module_perms(self, app_label):
        return self.has_provider_role


class Membership(models.Model):
    """A panel account in a tenant, with a role; in a parent tenant it reaches the children."""

    to_tenant = "tenant"

    class Role(models.TextChoices):
        OWNER = "owner", gettext_lazy("owner")
        ADMIN = "admin", gettext_lazy("admin")
        VIEWER = "viewer", gettext_lazy("viewer")

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    # Held here too, so that the database refuses a person as a member.
    user_kind = models.CharField(max_length=10, default=User.Kind.PANEL, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["tenant", "user"]
        constraints = [
            models.UniqueConstraint(fields=["user", "tenant"], name="membership_once"),
            models.CheckConstraint(name="membership_is_of_a_panel_account", condition=Q(user_kind="panel")),
            models.CheckConstraint(name="membership_role_is_known", condition=Q(role__in=["owner", "admin", "viewer"])),
        ]

    def __str__(self):
        return f"{self.user} in {self.tenant} ({self.role})"


class Invitation(models.Model):
    """Somebody is asked to become a member, by a link; gone when that was answered or withdrawn.

    Of an address, which has an account or not. The link's token is kept as a digest.
    """

    to_tenant = "tenant"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(max_length=254)  # as accounts have it
    role = models.CharField(max_length=10, choices=Membership.Role)
    # It holds while they may name somebody for this role.
    invited_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    sent_at = models.DateTimeField()
    token = models.CharField(max_length=40, db_index=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "email"], name="invitation_once"),
            models.CheckConstraint(name="invitation_role_is_known", condition=Q(role__in=["owner", "admin", "viewer"])),
        ]

    def __str__(self):
        return f"{self.email} in {self.tenant} ({self.role})"


class AuditEntry(models.Model):
    """Who did what to whose data. Never changed; the tenant sees its own."""

    to_tenant = "tenant"

    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    actor_name = models.CharField(max_length=254)  # kept when the account is gone; "command line" without one
    action = models.CharField(max_length=60)  # such as mailbox.suspended
    tenant = models.ForeignKey(Tenant, on_delete=models.SET_NULL, null=True, related_name="+")
    subject_type = models.CharField(max_length=40)
    subject_id = models.BigIntegerField(null=True)
    subject_name = models.CharField(max_length=400)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    reason = models.CharField(max_length=500, blank=True)
    ip = models.GenericIPAddressField(gettext_lazy("from"), null=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name = gettext_lazy("audit entry")
        verbose_name_plural = gettext_lazy("audit log")
        indexes = [
            # With the id: else PostgreSQL looks for the latest of a quiet subject through all entries there are.
            models.Index(fields=["subject_type", "subject_id", "-id"], name="audit_of_subject"),
            models.Index(fields=["tenant", "-id"]),
            models.Index(Folded("subject_name"), F("id").desc(), name="audit_subject"),
            models.Index(Folded("actor_name"), F("id").desc(), name="audit_actor"),
            models.Index(Folded("action"), F("id").desc(), name="audit_action"),
        ]

    def __str__(self):
        return f"{self.action} {self.subject_name}"


class Untold(models.Model):
    """An entry of which somebody is still to be told by letter; written with it, gone with the letter.

    `tries` are those that failed.
    """

    entry = models.OneToOneField(AuditEntry, on_delete=models.CASCADE, primary_key=True, related_name="+")
    due_at = models.DateTimeField(db_index=True)
    tries = models.PositiveSmallIntegerField(default=0)

    class Meta:
        ordering = ["due_at", "pk"]


class Visit(models.Model):
    """Somebody of the provider's looked into a tenant's console, or still does (visits.py)."""

    to_tenant = "tenant"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="visits")
    account = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    reason = models.CharField(max_length=500)
    began_at = models.DateTimeField(default=timezone.now)
    ends_at = models.DateTimeField()  # at the latest
    ended_at = models.DateTimeField(null=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(fields=["account"], condition=Q(ended_at=None), name="visit_one_at_a_time"),
        ]
        indexes = [
            models.Index(fields=["tenant", "-id"], name="visit_of_tenant"),
            models.Index(fields=["ends_at"], condition=Q(ended_at=None), name="visit_goes_on"),
        ]

    def __str__(self):
        return f"visit to {self.tenant}"

    @property
    def goes_on(self):
        return self.ended_at is None and self.ends_at > timezone.now()


class DirectoryChange(models.Model):
    """Append-only: what the mailserver's caches follow. No domain means everything.

    On PostgreSQL the table has one more column, xid, filled by the database: ids
    become visible out of order there, so the follower asks by snapshot, not by id.
    """

    at = models.DateTimeField(default=timezone.now)
    domain = models.CharField(max_length=253, blank=True)

    class Meta:
        ordering = ["pk"]


class SecondFactor(models.Model):
    """What somebody signs in with beside the password. That the row is there means: it is asked for.

    Of a panel account or the person of a mailbox, whose main password then opens no mail program.

    An authenticator app (RFC 6238), passkeys, or both; there is always one of them, and recovery codes for both.
    """

    user = models.OneToOneField(User, on_delete=models.CASCADE, related_name="second_factor")
    # Encrypted, by a key that isn't in the database. Empty: no authenticator app.
    secret = models.CharField(max_length=300, blank=True)
    last_step = models.BigIntegerField(default=0)  # of 30 seconds, since 1970: a code opens once
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self):
        return _("second factor of {user}").format(user=self.user)

    @property
    def has_app(self):
        return bool(self.secret)


class Passkey(models.Model):
    """A key pair on a device or in a password manager of its owner (WebAuthn); here is the public half."""

    factor = models.ForeignKey(SecondFactor, on_delete=models.CASCADE, related_name="passkeys")
    credential_id = models.CharField(max_length=1400, unique=True)  # base64url of at most 1023 bytes
    public_key = models.BinaryField(max_length=2000)  # COSE (RFC 9052 §7)
    sign_count = models.BigIntegerField(default=0)  # 0 for good where the key is synchronised between devices
    transports = models.JSONField(default=list)  # how the browser reaches it: "internal", "usb" …
    name = models.CharField(max_length=100)
    challenge = models.CharField(max_length=64, blank=True)  # digest of the last one it answered: no answer opens twice
    created_at = models.DateTimeField(default=timezone.now)
    used_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return self.name


class RecoveryCode(models.Model):
    """Opens in place of the app, once. Stored as a digest of its 80 random bits."""

    factor = models.ForeignKey(SecondFactor, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)
    used_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["factor", "digest"], name="recovery_code_once")]

    def __str__(self):
        return _("recovery code")


class PanelSession(AbstractBaseSession):
    """A browser that is signed in to the panel, or on the way (no user yet). The key is its secret."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="sessions")
    began_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    ip = models.GenericIPAddressField(gettext_lazy("from"), null=True)
    browser = models.CharField(max_length=200, blank=True)

    @classmethod
    def get_session_store_class(cls):
        """For `get_decoded` alone, which Django's own does as well; what is in use is sign_in/sessions.py."""
        return DatabaseStore


class PasswordReset(models.Model):
    """Somebody asked for a new password, for an account that exists or not. Digests, no names.

    With a token the account may set one. The rows are what is counted against too many requests.
    """

    at = models.DateTimeField(default=timezone.now, db_index=True)
    account = models.CharField(max_length=40)
    network = models.CharField(max_length=50)
    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, related_name="+")
    token = models.CharField(max_length=40, blank=True, db_index=True)

    class Meta:
        ordering = ["pk"]


class WrongSignIn(models.Model):
    """A wrong password of the last minutes, while authd wasn't there to count it. Digests, no names."""

    at = models.DateTimeField(default=timezone.now, db_index=True)
    account = models.CharField(max_length=32)
    network = models.CharField(max_length=50)
    ip = models.GenericIPAddressField(null=True)
    guess = models.CharField(max_length=32)

    class Meta:
        ordering = ["pk"]
        indexes = [models.Index(fields=["account", "at"]), models.Index(fields=["network", "at"])]
