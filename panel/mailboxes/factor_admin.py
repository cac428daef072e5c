"""Removing the second factor of a mailbox's person in the provider's admin."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import action

from panel.mailboxes.models import Mailbox
from panel.tenants.admin import OptionalReasonForm
from panel.tenants.scoped_admin import ScopedAdmin, by
from panel.tenants.sign_in import second_factor


class RemovesSecondFactor(ScopedAdmin):
    """Of MailboxAdmin: an act, offered where there is one."""

    def offered(self, obj: Any) -> set[str]:
        return super().offered(obj) - (set() if hasattr(obj.person, "second_factor") else {"remove_second_factor"})

    @action(
        description=gettext_lazy("Remove second factor…"), url_path="remove-second-factor", permissions=["act"],
        icon="phonelink_erase",
    )
    def remove_second_factor(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def act(obj: Mailbox, data: dict[str, Any]) -> str:
            second_factor.remove(obj.person, reason=data["reason"], **by(request))
            return _("{obj} has no second factor any more.").format(obj=obj)

        return self.confirm(
            request, object_id, title=_("Remove the second factor of {}"), button=_("Remove"), act=act,
            form_class=OptionalReasonForm, harmful=True,
            sentence=_(
                "For somebody who lost the phone, the passkeys and the recovery codes: all of it goes. Be sure that it "
                "is the person of {} who asks: the main password alone opens the mailbox then, in mail programs too."
            ),
        )
