"""What a member's role is called, and what it may do, in words."""

from typing import Any

from django.utils.translation import gettext_lazy as _

from panel.tenants.models import Membership

# The word, and what it may do, as a sentence goes on after "An admin".
ROLES: dict[str, tuple[Any, Any]] = {
    Membership.Role.VIEWER.value: (_("viewer"), _("sees everything and changes nothing")),
    Membership.Role.ADMIN.value: (_("admin"), _("can do everything but name owners or close the organisation")),
    Membership.Role.OWNER.value: (_("owner"), _("can do everything")),
}


def at_least(role: str) -> list[str]:
    """This role and those that may do more."""
    names = list(ROLES)
    return names[names.index(role) :]
