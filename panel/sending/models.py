"""Limits and their counters; messages, their recipients and every try; routes outward.

Ids of Message, Recipient and Attempt are made by the mailserver (panel/database/ids).
No other unique key and no foreign key of the database's stands on these three, so
that they can be partitioned by id range and pruned; tenants are closed, never deleted.
"""

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.database.indexed import Folded
from panel.domains.models import Domain
from panel.mailboxes.models import Credential, Mailbox
from panel.tenants.models import Tenant, User, one_of
from panel.tenants.scoping import ScopedQuerySet


def _trace(to, related_name, **options):
    """A foreign key of a table that grows with traffic: indexed by hand, not enforced by the database."""
    return models.ForeignKey(
        to, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name=related_name, **options
    )


class Window(models.TextChoices):
    HOUR = "hour", gettext_lazy("1 hour")
    DAY = "day", gettext_lazy("24 hours")


class SendingLimit(models.Model):
    """Recipients that a subject may reach in a window. No row: inherit; no number: unlimited."""

    to_tenant = "owner"

    # Whose subject it is, also for a tenant's own limit: all scoping goes through it.
    owner = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, null=True, blank=True, related_name="limits")
    domain = models.ForeignKey(Domain, on_delete=models.CASCADE, null=True, blank=True, related_name="limits")
    mailbox = models.ForeignKey(Mailbox, on_delete=models.CASCADE, null=True, blank=True, related_name="limits")
    credential = models.ForeignKey(Credential, on_delete=models.CASCADE, null=True, blank=True, related_name="limits")
    window = models.CharField(max_length=10, choices=Window)
    recipients = models.PositiveIntegerField(null=True, blank=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(
                name="limit_has_one_subject",
                condition=(
                    Q(tenant__isnull=False, domain__isnull=True, mailbox__isnull=True, credential__isnull=True)
                    | Q(tenant__isnull=True, domain__isnull=False, mailbox__isnull=True, credential__isnull=True)
                    | Q(tenant__isnull=True, domain__isnull=True, mailbox__isnull=False, credential__isnull=True)
                    | Q(tenant__isnull=True, domain__isnull=True, mailbox__isnull=True, credential__isnull=False)
                ),
            ),
            models.UniqueConstraint(fields=["tenant", "window"], name="limit_tenant_once"),
            models.UniqueConstraint(fields=["domain", "window"], name="limit_domain_once"),
            models.UniqueConstraint(fields=["mailbox", "window"], name="limit_mailbox_once"),
            models.UniqueConstraint(fields=["credential", "window"], name="limit_credential_once"),
            one_of("window", Window.choices, "limit_window_is_known"),
        ]

    def __str__(self):
        subject = self.tenant or self.domain or self.mailbox or self.credential
        number = _("unlimited") if self.recipients is None else self.recipients
        return _("{subject}: {number} in {window}").format(
            subject=subject, number=number, window=self.get_window_display()
        )


class Counter(models.Model):
    """Recipients charged to one subject: packed rings of minutes, hours and days (rules/limits)."""

    kind = models.PositiveSmallIntegerField()  # limits.Kind
    subject = models.BigIntegerField()  # the id of the credential, mailbox, domain or tenant
    rings = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kind", "subject"], name="counter_once")]


class Message(models.Model):
    """One intake. A tenant's log is read from Recipient and Attempt, never from here."""

    to_tenant = "tenant"

    class Direction(models.TextChoices):
        SUBMISSION = "submission", gettext_lazy("submission")
        INBOUND = "inbound", gettext_lazy("inbound")
        INTERNAL = "internal", gettext_lazy("internal")  # made here: a DSN, a letter
        ANSWER = "answer", gettext_lazy("automatic answer")  # made here for a mailbox whose owner is away

    id = models.BigIntegerField(primary_key=True)
    accepted_at = models.DateTimeField()
    direction = models.CharField(max_length=10, choices=Direction)
    tenant = _trace(Tenant, "+", null=True)
    reverse_path = models.CharField(max_length=320, blank=True)  # empty: the null path
    subject = models.CharField(max_length=200, blank=True)
    message_id = models.CharField("Message-ID", max_length=200, blank=True)
    header_from = models.CharField(gettext_lazy("From header"), max_length=320, blank=True)
    credential = _trace(Credential, "+", null=True)
    credential_text = models.CharField(gettext_lazy("logged in by"), max_length=400, blank=True)
    client_ip = models.GenericIPAddressField(gettext_lazy("client"), null=True)
    client_name = models.CharField(gettext_lazy("client says it is"), max_length=255, blank=True)  # as it said in EHLO
    tls = models.CharField("TLS", max_length=60, blank=True)  # such as "TLSv1.3 TLS_AES_256_GCM_SHA384"; empty: plain
    size = models.BigIntegerField()
    smtputf8 = models.BooleanField(default=False)
    body = models.CharField(max_length=10, blank=True)  # 7BIT, 8BITMIME
    ret = models.CharField(max_length=4, blank=True)  # FULL, HDRS (RFC 3461 §4.3)
    envid = models.CharField(max_length=100, blank=True)
    facts = models.JSONField(default=dict)  # what decided: the counters charged, as they stood

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["tenant", "-id"]),
            models.Index(fields=["message_id"]),
            # The few that were made here: the list of them would else read all. One each, as SQLite
            # takes a partial index only for its very condition.
            models.Index(fields=["-id"], condition=Q(direction="internal"), name="message_internal"),
            models.Index(fields=["-id"], condition=Q(direction="answer"), name="message_answer"),
            # Mail from elsewhere has none, and pays nothing for it.
            models.Index(
                fields=["credential", "-id"], condition=Q(credential__isnull=False), name="message_credential"
            ),
            models.Index(Folded("reverse_path"), F("id").desc(), name="message_reverse_path"),
            models.Index(fields=["client_ip", "-id"], name="message_client_ip"),
        ]

    @property
    def queue_id(self):
        from panel.database import ids

        return ids.to_text(self.id)

    def __str__(self):
        return self.queue_id


class Hold(models.IntegerChoices):
    """Why a waiting recipient does not go; several can hold at once (a bit each)."""

    SUSPENDED = 1, gettext_lazy("its sender is suspended")
    UNDELIVERABLE = 2, gettext_lazy("it can neither be delivered nor returned")
    POISON = 4, gettext_lazy("it crashed its worker again and again")


class Recipient(models.Model):
    """One recipient of a message; its state is the queue.

    `tenant` caused it and is charged; `recipient_tenant` is the one whose address it
    is here, or none. The first may see `original` and the outcome; the second
    `original`, `resolved` and the reverse-path.
    """

    to_tenant = "tenant"

    class State(models.TextChoices):
        WAITING = "waiting", gettext_lazy("waiting")
        DELIVERED = "delivered", gettext_lazy("delivered")
        FAILED = "failed", gettext_lazy("failed")
        DISCARDED = "discarded", gettext_lazy("discarded")

    id = models.BigIntegerField(primary_key=True)
    message = _trace(Message, "recipients")
    tenant = _trace(Tenant, "+", null=True)
    recipient_tenant = _trace(Tenant, "+", null=True)
    original = models.CharField(max_length=320)
    resolved = models.CharField(max_length=320)
    next_hop = models.CharField(max_length=255)  # "local", "lmtp", a domain, or a route's host:port
    state = models.CharField(max_length=10, choices=State)
    holds = models.PositiveSmallIntegerField(default=0)  # bits of Hold
    due_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True)
    lease_by = models.CharField(max_length=60, blank=True)
    tries = models.PositiveIntegerField(default=0)
    expires_at = models.DateTimeField()
    staged = models.BooleanField(default=False)  # its file was staged: what is no longer there was published
    notify = models.CharField(max_length=40, blank=True)  # NEVER, or of SUCCESS,FAILURE,DELAY (RFC 3461 §4.1)
    orcpt = models.CharField(max_length=500, blank=True)
    delay_reported = models.BooleanField(default=False)
    last_reply = models.CharField(max_length=600, blank=True)
    settled_at = models.DateTimeField(null=True)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["message"]),
            models.Index(fields=["due_at"], condition=Q(state="waiting", holds=0), name="recipient_due"),
            models.Index(fields=["due_at"], condition=Q(state="waiting", holds__gt=0), name="recipient_held"),
            models.Index(fields=["tenant", "-id"]),
            models.Index(fields=["recipient_tenant", "-id"]),
            # With every column that the list of what waits, and the queue by next hop, ask for; the state as well
            # for SQLite: no row itself is read to count or to find them.
            models.Index(fields=["-id", "holds", "state"], condition=Q(state="waiting"), name="recipient_waiting"),
            models.Index(
                fields=["next_hop", "id", "holds", "due_at", "tries", "state"], condition=Q(state="waiting"),
                name="recipient_hop",
            ),
            models.Index(fields=["-id"], condition=Q(state="failed"), name="recipient_failed"),
            models.Index(fields=["-id"], condition=Q(state="discarded"), name="recipient_discarded"),
            # As it was written, in whatever case; what it resolves to is canonical, and asked for as it is.
            models.Index(Folded("original"), F("id").desc(), name="recipient_original"),
            models.Index(
                fields=["resolved", "-id"], opclasses=["varchar_pattern_ops", "int8_ops"], name="recipient_resolved"
            ),
        ]

    def __str__(self):
        return self.original


class Attempt(models.Model):
    """One try to deliver one recipient."""

    to_tenant = "tenant"

    id = models.BigIntegerField(primary_key=True)
    recipient = _trace(Recipient, "attempts")
    tenant = _trace(Tenant, "+", null=True)
    recipient_tenant = _trace(Tenant, "+", null=True)
    at = models.DateTimeField()
    outcome = models.CharField(max_length=10)  # delivered, deferred, failed
    host = models.CharField(max_length=255, blank=True)
    address = models.CharField(max_length=45, blank=True)
    tls = models.CharField(max_length=60, blank=True)
    reply = models.CharField(max_length=600, blank=True)
    duration_ms = models.PositiveIntegerField()

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["recipient"])]

    def __str__(self):
        return f"{self.outcome} at {self.at:%Y-%m-%d %H:%M:%S}"


class Content(models.Model):
    """A message's bytes while a recipient needs them: our headers as a prefix, and the body as it came."""

    class Where(models.TextChoices):
        INLINE = "inline", gettext_lazy("in this row")
        FILE = "file", gettext_lazy("a file in the spool folder")

    message = models.OneToOneField(
        Message, on_delete=models.DO_NOTHING, db_constraint=False, primary_key=True, related_name="content"
    )
    prefix = models.BinaryField()
    where = models.CharField(max_length=10, choices=Where)
    body = models.BinaryField(null=True)
    key = models.CharField(max_length=60, blank=True)
    size = models.BigIntegerField()  # of the body
    sha256 = models.CharField(max_length=64)


class BulkKind(models.TextChoices):
    RETRY = "retry", gettext_lazy("try now")
    DISCARD = "discard", gettext_lazy("give up")


class BulkAct(models.Model):
    """One act on many waiting recipients, done in steps: what was asked, how far it is, what came of it.

    Steps go by rising ids: what is at or below `after` is done with, what is above `upto` came
    after the question and is none of this act's.
    """

    kind = models.CharField(gettext_lazy("act"), max_length=10, choices=BulkKind)
    selection = models.JSONField()  # Selection.as_json
    which = models.CharField(gettext_lazy("which"), max_length=1000)  # the selection as a sentence, as it was confirmed
    release = models.BooleanField(default=False)
    reason = models.CharField(max_length=500, blank=True)
    actor = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    actor_name = models.CharField(gettext_lazy("by"), max_length=254)
    asked_at = models.DateTimeField(gettext_lazy("asked"), default=timezone.now)
    asked = models.PositiveIntegerField()  # recipients that it was about when it was asked for
    upto = models.BigIntegerField()
    after = models.BigIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    held = models.PositiveIntegerField(default=0)  # left alone: held
    on_the_way = models.PositiveIntegerField(default=0)  # left alone: being delivered at that moment
    finished_at = models.DateTimeField(null=True)
    stopped = models.BooleanField(default=False)  # by a person, before its end
    told = ""  # `which` in the reader's language, where a page has it (selection.which_of)

    class Meta:
        ordering = ["-pk"]
        verbose_name = gettext_lazy("bulk act")
        constraints = [one_of("kind", BulkKind.choices, "bulk_act_kind_is_known")]

    def __str__(self):
        return _("{act}: {which}").format(act=self.get_kind_display(), which=self.told or self.which)

    @property
    def looked_at(self):
        return self.done + self.held + self.on_the_way

    @property
    def settled(self):
        """Left alone: no longer waiting when its turn came. Known at the end."""
        return 0 if self.stopped or self.finished_at is None else max(0, self.asked - self.looked_at)


class OutboundRoute(models.Model):
    """The provider's way to a destination, in place of its MX. An empty domain is the default way."""

    class Tls(models.TextChoices):
        OPPORTUNISTIC = "opportunistic", gettext_lazy("when offered")
        REQUIRED = "required", gettext_lazy("required, certificate checked")
        NONE = "none", gettext_lazy("never")

    domain = models.CharField(max_length=253, unique=True, blank=True, help_text=gettext_lazy(
        "Empty: every domain without a route."
    ))
    host = models.CharField(max_length=253)
    port = models.PositiveIntegerField(default=25)
    tls = models.CharField("TLS", max_length=20, choices=Tls, default=Tls.OPPORTUNISTIC)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["domain"]
        verbose_name = gettext_lazy("route")
        constraints = [
            models.CheckConstraint(name="route_port_is_a_port", condition=Q(port__gte=1, port__lte=65535)),
        ]

    def __str__(self):
        return f"{self.domain or 'every other domain'} → {self.way}"

    @property
    def way(self):
        """Host and port as they stand in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class LetterSent(models.Model):
    """A letter of ours that went to somebody: counted, so that nobody is flooded or told twice. A digest, no name."""

    at = models.DateTimeField(db_index=True)
    to = models.CharField(max_length=40)
    purpose = models.CharField(max_length=20)  # letters.Purpose
    about = models.CharField(max_length=100, blank=True)  # what must not be told again soon

    class Meta:
        ordering = ["pk"]
        indexes = [
            models.Index(fields=["to", "purpose", "at"], name="letter_to"),
            models.Index(fields=["about", "at"], name="letter_about"),
        ]
