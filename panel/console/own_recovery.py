"""A person's recovery address: asked for with the main password, and confirmed by the link in the letter to it."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from panel.console.access import mailbox_page
from panel.console.frame import page
from panel.console.own_sign_ins import ByMainPasswordForm, main_password
from panel.console.places import MailboxPlace
from panel.operations.recovery import Became, ask_recovery, cancel_recovery, confirm_recovery, opened, send_again
from panel.tenants.changes import ServiceError

RECOVERY_INPUT = forms.EmailInput({"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"})


class RecoveryForm(ByMainPasswordForm):
    """The recovery address, or none."""

    recovery = forms.CharField(
        label=gettext_lazy("Recovery address"), required=False, max_length=320, widget=RECOVERY_INPUT,
        help_text=gettext_lazy("One that you read without this mailbox, such as a private one. Empty: none."),
    )
    field_order = ["recovery", "password"]


def link_to(token: str) -> str:
    return reverse("console:me-confirm-recovery", args=[token])


@mailbox_page(change=True)
def recovery(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """Where a link goes by which another main password is chosen: asked for or removed by who knows this one."""
    mailbox = place.mailbox
    form = RecoveryForm(
        place, main_password(mailbox), request.POST if request.method == "POST" else None,
        initial={"recovery": mailbox.recovery},
    )
    if request.method == "POST" and form.is_valid():
        try:
            became = ask_recovery(
                mailbox, form.cleaned_data["recovery"], link=link_to, actor=place.account, ip=place.ip
            )
        except ServiceError as error:
            form.add_error("recovery" if error.field else None, str(error))
        else:
            if became is Became.ASKED:
                messages.success(request, _("A letter went out: open the link in it, and the address counts."))
            elif became is Became.REMOVED:
                messages.success(request, _("Your recovery address is removed."))
            return _back()
    return page(
        request, place, "console/me_recovery.html", _("Your recovery address"), crumbs=_crumbs(), form=form,
        back=reverse("console:me-sign-ins"),
    )


@mailbox_page(change=True)
def again(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """The letter once more, with a new link."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    try:
        asked = send_again(place.mailbox, link=link_to, actor=place.account, ip=place.ip)
    except ServiceError as error:
        messages.warning(request, str(error))
    else:
        messages.success(request, _("Another letter went to {address}. The link before is void.").format(
            address=asked.address
        ))
    return _back()


@mailbox_page(change=True)
def cancel(request: HttpRequest, place: MailboxPlace) -> HttpResponse:
    """Take back what waits for its link to be opened."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    if cancel_recovery(place.mailbox, actor=place.account, ip=place.ip):
        messages.success(request, _("Taken back: the link in the letter opens nothing any more."))
    return _back()


@mailbox_page(change=True)
def confirm(request: HttpRequest, place: MailboxPlace, recovery: str) -> HttpResponse:
    """What the link in the letter opens. A GET changes nothing: programs that look at mail open links."""
    try:
        if request.method == "POST":
            address = confirm_recovery(place.mailbox, recovery, actor=place.account, ip=place.ip)
            messages.success(request, _("{address} is your recovery address now.").format(address=address))
            return _back()
        asked = opened(place.mailbox, recovery)
    except ServiceError as error:
        messages.warning(request, str(error))
        return _back()
    return page(
        request, place, "console/confirm.html", _("Confirm your recovery address"), crumbs=_crumbs(),
        sentence=_(
            "If the password of {mailbox} is forgotten, a link to choose another one goes to {address}: whoever reads "
            "it can open the mailbox."
        ).format(mailbox=place.mailbox, address=asked.address),
        button=_("Confirm"), back=reverse("console:me-sign-ins"),
    )


def _crumbs() -> list[tuple[Any, str]]:
    return [(_("Password and sign-ins"), reverse("console:me-sign-ins"))]


def _back() -> HttpResponse:
    return HttpResponseRedirect(reverse("console:me-sign-ins"))
