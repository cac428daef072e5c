"""What a person's mailbox does with its mail: forward, vacation, junk, blocked senders."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.console.access import mailbox_page
from panel.console.frame import page
from panel.console.places import MailboxPlace
from panel.mailboxes.rule_services import MOST_DAYS, MOST_TEXT, Rules, change_rules, rules_of
from panel.tenants.changes import ServiceError
from panel.tenants.form_fields import DayField, LinesField

_LINES = {"rows": 3, "spellcheck": "false", "autocomplete": "off"}


class RulesForm(forms.Form):
    """All rules of a mailbox."""

    forward_to = LinesField(
        label=gettext_lazy("Forward to"), required=False, max_length=5000, widget=forms.Textarea(attrs=_LINES),
        help_text=gettext_lazy("One address a line; each gets every message. Empty: nothing is forwarded."),
    )
    forward_keep = forms.BooleanField(label=gettext_lazy("Keep a copy here"), required=False)
    vacation = forms.BooleanField(label=gettext_lazy("Answer senders that I am away"), required=False)
    vacation_from = DayField(label=gettext_lazy("First day"), help_text=gettext_lazy("In UTC. Empty: at once."))
    vacation_until = DayField(label=gettext_lazy("Last day"), help_text=gettext_lazy("Empty: until I switch it off."))
    vacation_subject = forms.CharField(
        label=gettext_lazy("Subject"), required=False, max_length=200,
        help_text=gettext_lazy("Empty: the sender's own subject, with “Auto:” before it."),
    )
    vacation_text = forms.CharField(
        label=gettext_lazy("What they are answered"), required=False, max_length=MOST_TEXT,
        widget=forms.Textarea(attrs={"rows": 6}),
    )
    vacation_days = forms.IntegerField(
        label=gettext_lazy("Answer the same sender again after so many days"), min_value=1, max_value=MOST_DAYS,
        initial=7,
    )
    junk = forms.BooleanField(
        label=gettext_lazy("Put what is marked as junk into the folder Junk"), required=False
    )
    blocked = LinesField(
        label=gettext_lazy("Take nothing from"), required=False, max_length=170_000,
        widget=forms.Textarea(attrs={**_LINES, "rows": 4}),
        help_text=gettext_lazy("One a line: an address, or a domain with all below it."),
    )

    @property
    def of_vacation(self) -> list[Any]:
        return [self[name] for name in ("vacation_subject", "vacation_text", "vacation_days")]

    @property
    def shows_junk(self) -> bool:
        """Whether that section stands open: where something is wrong, or was typed that its summary doesn't say."""
        return self.is_bound and bool({"junk", "blocked"} & {*self.errors, *self.changed_data})


@mailbox_page(change=True)
def rules(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """One form of all of them; what isn't wrong in it is kept as it was typed."""
    now = rules_of(place.mailbox)
    form = RulesForm(request.POST if request.method == "POST" else None, initial=_initial(now))
    if request.method == "POST" and form.is_valid():
        try:
            change_rules(place.mailbox, **form.cleaned_data, actor=place.account, ip=place.ip)
        except ServiceError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            messages.success(request, _("Saved. It holds for every message from now on."))
            return HttpResponseRedirect(reverse("console:me-rules"))
    return page(
        request, place, "console/me_rules.html", _("Forward and vacation"), form=form, rules=now,
        sentences=now.sentences(timezone.now().date()),
    )


def _initial(now: Rules) -> dict[str, Any]:
    return {name: getattr(now, name) for name in Rules.__dataclass_fields__}
