"""Domains hosted here, a tenant's own or the provider's shared ones; their aliases; what the DNS says of them."""

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy

from panel.tenants.models import STATUS_CHOICES, Plan, StatusField, Tenant, in_grace, one_of
from panel.tenants.scoping import ScopedQuerySet


class Proof(models.TextChoices):
    """Whether the domain's owner proved it. A pending domain doesn't exist for the wire."""

    PENDING = "pending", gettext_lazy("pending")
    PROVED = "proved", gettext_lazy("proved")
    LAPSED = "lapsed", gettext_lazy("lapsed")


class Domain(models.Model):
    """A domain whose mail is handled here. Its name is canonical: A-labels, lower case."""

    to_tenant = "tenant"

    class Kind(models.TextChoices):
        OWN = "own", gettext_lazy("a tenant's own")
        SHARED = "shared", gettext_lazy("shared (the provider's)")

    class Store(models.TextChoices):
        """Who puts mail into the domain's mailboxes."""

        INSTALLATION = "", gettext_lazy("as the installation (POSTHOUSE_STORE)")
        MAILDIR = "maildir", gettext_lazy("Posthouse, into Maildirs")
        LMTP = "lmtp", gettext_lazy("Dovecot, by LMTP")

    name = models.CharField(max_length=253, unique=True)
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.OWN)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True, blank=True, related_name="domains")
    proof = models.CharField(max_length=10, choices=Proof, default=Proof.PENDING)
    proved_by = models.CharField(max_length=100, blank=True)  # "checked by us" or "by TXT record"
    plans = models.ManyToManyField(
        Plan, blank=True, related_name="shared_domains",
        help_text=gettext_lazy("For a shared domain: tenants on these plans may place addresses in it themselves."),
    )
    store = models.CharField(
        gettext_lazy("stored by"), max_length=10, choices=Store, default=Store.INSTALLATION, blank=True,
        help_text=gettext_lazy("Who puts mail into its mailboxes. What is in them already stays where it is."),
    )
    status = StatusField()
    status_reason = models.CharField(gettext_lazy("reason"), max_length=500, blank=True)
    grace_ends_at = models.DateTimeField(gettext_lazy("can be restored until"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                name="domain_own_has_a_tenant",
                condition=Q(kind="own", tenant__isnull=False) | Q(kind="shared", tenant__isnull=True),
            ),
            one_of("proof", Proof.choices, "domain_proof_is_known"),
            one_of("status", STATUS_CHOICES, "domain_status_is_known"),
        ]
        indexes = [in_grace("domain_in_grace")]

    def __str__(self):
        return self.name


class DomainAlias(models.Model):
    """A whole domain that stands for another: anything@name is anything@domain."""

    to_tenant = "domain__tenant"

    name = models.CharField(max_length=253, unique=True)
    domain = models.ForeignKey(Domain, on_delete=models.CASCADE, related_name="aliases")
    proof = models.CharField(max_length=10, choices=Proof, default=Proof.PENDING)
    proved_by = models.CharField(max_length=100, blank=True)
    # Neither the proof nor an MX to us: rules/domain_life. Of a domain it stands with its check.
    missing_since = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = gettext_lazy("domain alias")
        verbose_name_plural = gettext_lazy("domain aliases")
        constraints = [one_of("proof", Proof.choices, "domain_alias_proof_is_known")]

    def __str__(self):
        return f"{self.name} → {self.domain}"


class DomainCheck(models.Model):
    """What the DNS says of a domain: the latest look only, and when it last became another.

    `found` are the answers (checks.py writes and reads them); `verdicts` what came of them, by the
    records' keys; `known` the same without what the DNS didn't say, from the look before.
    """

    to_tenant = "domain__tenant"

    domain = models.OneToOneField(Domain, on_delete=models.CASCADE, related_name="latest_check")
    asked_at = models.DateTimeField(null=True)  # when the latest look was begun, by anybody
    due_at = models.DateTimeField(default=timezone.now, db_index=True)  # when the next one is, by itself
    checked_at = models.DateTimeField(null=True)
    changed_at = models.DateTimeField(null=True)
    missing_since = models.DateTimeField(null=True)  # neither the proof nor an MX to us: rules/domain_life
    found = models.JSONField(default=dict)
    verdicts = models.JSONField(default=dict)
    known = models.JSONField(default=dict)

    objects = ScopedQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(
                fields=["missing_since"], condition=Q(missing_since__isnull=False), name="domain_check_missing"
            ),
        ]

    def __str__(self):
        return f"check of {self.domain}"
