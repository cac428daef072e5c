"""A mailbox that fills up: told to its person. When that is due is decided in rules/quota."""

from datetime import datetime
from functools import partial

from django.utils.translation import gettext as _

from panel.mailboxes.language import language_of
from panel.mailboxes.models import Mailbox
from panel.operations.notices.readers import OF_MAILBOX, reaches
from panel.rules import quota
from panel.sending import letters
from panel.sending.letters import Letter, Link, Purpose, Words
from panel.sending.models import Message

WITHIN = letters.DAY

_UNITS = ("bytes", "KB", "MB", "GB", "TB")  # each 1,024 of the one before, as mail clients count


def tell(mailbox: int, used_bytes: int, quota_bytes: int, now: datetime) -> Message | None:
    """The letter to the mailbox; None if it is gone, takes no mail, is a catch-all, or was told of it often today."""
    box = Mailbox.objects.filter(pk=mailbox).select_related(*OF_MAILBOX).first()
    if box is None or not box.address.local_part or not reaches(box):
        return None
    return letters.send(
        str(box), language_of(box), partial(_letter, box, used_bytes, quota_bytes), purpose=Purpose.ROOM, now=now,
        within=WITHIN,
    )


def _letter(mailbox: Mailbox, used_bytes: int, quota_bytes: int) -> Letter:
    left = max(0, quota_bytes - used_bytes)
    return Letter(_("Your mailbox is {percent} full").format(percent=f"{quota.percent(used_bytes, quota_bytes)} %"), (
        Words(_("Your mailbox {mailbox} holds {used} of the {quota} that it may hold.").format(
            mailbox=letters.cleaned(mailbox, 320), used=_size(used_bytes), quota=_size(quota_bytes)
        )),
        Words(_("{room} are left.").format(room=_size(left)) if left else _("Nothing is left.")),
        Words(_("When it is full, mail to you is put off or returned to whoever sent it.")),
        Words(_(
            "To make room, delete messages that you don't need in your mail program, the large ones first, and empty "
            "the trash: what lies there counts as well. Or ask whoever looks after your mail for more room."
        )),
        Link(_("See your mailbox"), letters.url("/me/")),
    ))


def _size(number: int) -> str:
    """Bytes to one digit: "7.1 MB"."""
    power = 0
    while number >= 1000 * 1024**power and power < len(_UNITS) - 1:
        power += 1
    return f"{number / 1024**power:,.1f} {_UNITS[power]}" if power else f"{number:,} bytes"
