"""What a person may see: the one place that says which rows belong to whom."""

from django.apps import apps
from django.db import models


class ScopedQuerySet(models.QuerySet):
    """Rows that belong to a tenant; the model's `to_tenant` names the path to it."""

    def for_user(self, user):
        """What this person may see: all for a provider role, else their tenants' rows; nothing when not signed in."""
        if not user.is_authenticated:
            return self.none()
        if user.has_provider_role:
            return self
        tenants = apps.get_model("tenants", "Tenant").objects.of(user)
        return self.filter(**{f"{self.model.to_tenant}__in": tenants})  # type: ignore[attr-defined]


class TenantQuerySet(ScopedQuerySet):
    def of(self, user):
        """The tenants that this account is a member of, and their children."""
        if not user.is_active or user.kind != user.Kind.PANEL:
            return self.none()
        # Not joined: each tenant would be read with all of its members, its parent's and theirs.
        own = apps.get_model("tenants", "Membership").objects.filter(user=user).order_by().values("tenant")
        return self.filter(
            models.Q(pk__in=own) | models.Q(parent__in=own) | models.Q(parent__parent__in=own)
        )
