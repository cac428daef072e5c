"""A number against what is allowed, as a bar with its numbers beside it."""

from dataclasses import dataclass

from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

NEAR_PERCENT, FULL_PERCENT = 75, 90  # from where a bar is amber, and red


@dataclass(frozen=True, slots=True)
class Gauge:
    """How much is taken of how much. Subclasses say in `words` what."""

    used: int | None  # None: nobody knows
    allowed: int | None  # None: unlimited

    @property
    def words(self) -> str:
        """Such as "41 of 60", "41, unlimited" or "none allowed"."""
        if self.used is None:
            return _("unknown")
        if self.allowed is None:
            return _("{used:,}, unlimited").format(used=self.used)
        if self.allowed:
            return _("{used:,} of {allowed:,}").format(used=self.used, allowed=self.allowed)
        return _("{used:,}, none allowed").format(used=self.used) if self.used else _("none allowed")

    @property
    def low(self) -> float:
        return NEAR_PERCENT * (self.allowed or 0) / 100

    @property
    def high(self) -> float:
        return FULL_PERCENT * (self.allowed or 0) / 100

    @property
    def value(self) -> int:
        """For a meter, which ends at what is allowed: that can be made smaller than what is taken."""
        return min(self.used or 0, self.allowed or 0)

    @property
    def look(self) -> str:
        """good, warn or bad; plain where there is nothing to measure."""
        if not self.allowed or self.used is None:
            return "plain"
        share = 100 * self.used / self.allowed
        return "bad" if share >= FULL_PERCENT else "warn" if share >= NEAR_PERCENT else "good"

    @property
    def in_a_list(self) -> SafeString:
        """The bar and its numbers, for a cell."""
        return render_to_string("admin/posthouse/gauge_cell.html", {"bar": self})
