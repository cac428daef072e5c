"""The page of a mailbox's rules in the provider's admin."""

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import action
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from panel.mailboxes.form_fields import DayField, LinesField
from panel.mailboxes.models import Mailbox
from panel.mailboxes.rule_services import MOST_DAYS, change_rules, rules_of
from panel.tenants.changes import ServiceError
from panel.tenants.scoped_admin import By, ScopedAdmin, by


class RulesForm(forms.Form):
    vacation = forms.BooleanField(required=False, label=gettext_lazy(
        "Answer senders"
    ), widget=UnfoldBooleanSwitchWidget)
    vacation_from = DayField(label=gettext_lazy("First day"), help_text=gettext_lazy("Empty: at once."))
    vacation_until = DayField(label=gettext_lazy(
        "Last day"
    ), help_text=gettext_lazy("Empty: until it is switched off. Days are in UTC."))
    vacation_subject = forms.CharField(
        required=False, max_length=200, label=gettext_lazy("Subject"), widget=UnfoldAdminTextInputWidget,
        help_text=gettext_lazy("Empty: the sender's own subject, with “Auto:” before it."),
    )
    vacation_text = forms.CharField(
        required=False, label=gettext_lazy("Answer"),
        widget=UnfoldAdminTextareaWidget(
            attrs={"rows": 6, "placeholder": gettext_lazy("I am away until Monday. Ask …")}
        ),
    )
    vacation_days = forms.IntegerField(
        required=False, label=gettext_lazy("Answer a sender again after so many days"),
        widget=UnfoldAdminIntegerFieldWidget(attrs={"min": 1, "max": MOST_DAYS, "placeholder": "7"}),
    )
    forward_to = LinesField(
        required=False, label=gettext_lazy("Forward to"),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3, "placeholder": "ann@elsewhere.example"}),
        help_text=gettext_lazy("Addresses here or elsewhere, one a line. Empty: nothing is forwarded."),
    )
    forward_keep = forms.BooleanField(
        required=False, label=gettext_lazy("Keep a copy in the mailbox"), widget=UnfoldBooleanSwitchWidget
    )
    junk = forms.BooleanField(
        required=False, label=gettext_lazy("Put marked junk into Junk"), widget=UnfoldBooleanSwitchWidget
    )
    blocked = LinesField(
        required=False, label=gettext_lazy("Blocked senders"),
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4, "placeholder": "spam.example\nbob@partner.example"}),
        help_text=gettext_lazy("Addresses, or domains with all below them, one a line."),
    )

    def clean_vacation_days(self) -> int:
        days: int | None = self.cleaned_data["vacation_days"]
        return 7 if days is None else days

    SECTIONS = (
        (
            gettext_lazy("While away"),
            gettext_lazy(
                "Each sender is answered once in so many days. Mailing lists, programs, junk, and mail that names "
                "this address in neither To nor Cc are never answered."
            ),
            ["vacation", "vacation_from", "vacation_until", "vacation_subject", "vacation_text", "vacation_days"],
        ),
        (
            gettext_lazy("Forward"),
            gettext_lazy(
                "What is sent on leaves with its sender's address. Outside addresses count against the tenant's "
                "sending limits, and what can't be delivered there is handled as mail to an alias is."
            ),
            ["forward_to", "forward_keep"],
        ),
        (
            gettext_lazy("Junk"),
            gettext_lazy(
                "Mail that a spam filter on the way has marked goes into the folder Junk. It is neither forwarded "
                "nor answered."
            ),
            ["junk"],
        ),
        (
            gettext_lazy("Block list"),
            gettext_lazy(
                "These senders are refused before their message is taken. What names them only in its From is "
                "refused too; when it is for others as well, it is dropped for this mailbox alone, and the others "
                "don't notice."
            ),
            ["blocked"],
        ),
    )

    def sections(self) -> list[tuple[str, str, list[forms.BoundField]]]:
        return [(str(title), str(words), [self[name] for name in names]) for title, words, names in self.SECTIONS]


class RulesPage(ScopedAdmin):
    """The page on which a mailbox's rules are changed."""

    @action(description=gettext_lazy("Rules…"), url_path="rules", permissions=["act"], icon="rule")
    def rules(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if not self.has_act_permission(request):
            raise PermissionDenied
        mailbox = self.object_or_404(request, object_id)
        form = RulesForm(request.POST or None, initial=_initial(mailbox))
        if request.method == "POST" and form.is_valid() and _saved(form, mailbox, by(request)):
            messages.success(request, _("The rules of {mailbox} are saved.").format(mailbox=mailbox))
            return HttpResponseRedirect(self.url_of(object_id))
        context = {
            **self.admin_site.each_context(request),
            "title": _("Rules of {mailbox}").format(mailbox=mailbox),
            "form": form,
            "opts": self.opts,
            "object": mailbox,
            "back": self.url_of(object_id),
        }
        return TemplateResponse(request, "admin/posthouse/rules.html", context)


def _saved(form: RulesForm, mailbox: Mailbox, who: By) -> bool:
    """Save all of it, or nothing and say each thing that is wrong beside its field."""
    data = dict(form.cleaned_data)
    with transaction.atomic():
        while True:
            try:
                change_rules(mailbox, **data, **who)
            except ServiceError as error:
                form.add_error(error.field if error.field in form.fields else None, str(error))
                if data.pop(error.field, None) is None:
                    break
                if error.field == "vacation_text":
                    data.pop("vacation", None)
            else:
                break
        if form.errors:
            transaction.set_rollback(True)
    return not form.errors


def _initial(mailbox: Mailbox) -> dict[str, Any]:
    rules = rules_of(mailbox)
    return {name: getattr(rules, name) for name in RulesForm.base_fields}
