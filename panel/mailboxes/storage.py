"""How full a mailbox is, as pages and commands show it."""

from dataclasses import dataclass
from datetime import datetime

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from panel.mailboxes.models import Mailbox, MailboxUsage
from panel.rules import quota
from panel.tenants.shown import about, moment, size


@dataclass(frozen=True, slots=True)
class Storage:
    """What a mailbox holds and may hold. Reads `mailbox.usage`: lists select it with their rows."""

    usage: MailboxUsage | None  # None: nothing is known yet
    quota_bytes: int | None
    known_at: datetime | None

    @classmethod
    def of(cls, mailbox: Mailbox) -> "Storage":
        usage: MailboxUsage | None = getattr(mailbox, "usage", None)
        if usage is None or usage.known_at is None:
            return cls(None, mailbox.quota_bytes, None)
        return cls(usage, mailbox.quota_bytes, usage.known_at)

    @property
    def used_bytes(self) -> int | None:
        return self.usage.used_bytes if self.usage else None

    @property
    def messages(self) -> int | None:
        return self.usage.messages if self.usage else None

    @property
    def percent(self) -> int | None:
        if self.usage is None or self.quota_bytes is None:
            return None
        return quota.percent(self.usage.used_bytes, self.quota_bytes)

    @property
    def words(self) -> str:
        """Such as "7.1 MB of 5 GB, 14 %" or "7.1 MB, unlimited"."""
        used = about(self.usage.used_bytes) if self.usage else _("not counted yet")
        if self.quota_bytes is None:
            return _("{used}, unlimited").format(used=used)
        most = size(self.quota_bytes)
        if not self.usage:
            return _("{used}, {most} allowed").format(used=used, most=most)
        return _("{used} of {most}, {percent} %").format(used=used, most=most, percent=self.percent)

    def bar(self) -> SafeString:
        """A meter with its numbers; without a limit the numbers alone."""
        if self.usage is None or not self.quota_bytes:
            return format_html('<span class="ph-storage is-plain">{}</span>', self.words)
        low, high = (threshold * self.quota_bytes // 100 for threshold in quota.WARN_AT)
        reached = quota.level(self.usage.used_bytes, self.quota_bytes)
        sign = {95: "■ ", 80: "▲ "}.get(reached, "")
        return format_html(
            '<span class="ph-storage is-{}">'
            '<meter min="0" max="{}" low="{}" high="{}" optimum="0" value="{}">{}</meter>'
            '<span class="ph-num">{}{}</span></span>',
            {95: "bad", 80: "warn"}.get(reached, "good"), self.quota_bytes, low, high,
            min(self.usage.used_bytes, self.quota_bytes), self.words, sign, self.words,
        )

    def whole(self) -> SafeString:
        """The bar, and below it how many messages, and how old the numbers are."""
        if self.usage is None or self.known_at is None:
            return self.bar()
        counted = self.usage.counted_at
        return format_html(
            '{}<span class="ph-storage-more ph-dim">{} · {} · {}</span>', self.bar(),
            ngettext("{n:,} message", "{n:,} messages", self.usage.messages).format(n=self.usage.messages),
            format_html(_("as of {}"), moment(self.known_at)),
            format_html(_("counted {}"), moment(counted)) if counted else _("never counted"),
        )
