"""How full a mailbox is, as a bar with its numbers."""

from django.utils.translation import gettext as _

from panel.tenants.gauge import Gauge
from panel.tenants.shown import about, size


class Filled(Gauge):
    """How much of its storage a mailbox has filled, in bytes."""

    @property
    def words(self) -> str:
        filled = about(self.used) if self.used is not None else _("not counted yet")
        if self.allowed is None:
            return _("{filled}, unlimited").format(filled=filled)
        if self.used is None:
            return _("not counted yet, {allowed} allowed").format(allowed=size(self.allowed))
        return _("{filled} of {allowed}").format(filled=filled, allowed=size(self.allowed))
