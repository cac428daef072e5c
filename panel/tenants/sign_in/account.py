"""The pages of an own sign-in: what protects it, and how to change that. Whose it is, and where they stand: door.py."""

from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext
from django.views.decorators.http import require_POST

from panel.client_address import client_ip
from panel.tenants import visits
from panel.tenants.changes import ServiceError
from panel.tenants.models import PanelSession, SecondFactor, User
from panel.tenants.services import set_account_password
from panel.tenants.shown import moment
from panel.tenants.sign_in import passkeys, second_factor, sessions
from panel.tenants.sign_in.door import ADMIN, Door
from panel.tenants.sign_in.forms import EnrolForm, OwnCodeForm, OwnPasswordForm

OFFERED = "offered_second_factor"  # in the session, sealed: offered, and not yet proved


def own(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """The account's page."""
    account = door.account(request)
    return door.page(
        request, "account/own.html", _("Your account"), account=account, **factor_of(account),
        sessions=[_shown(each, request) for each in sessions.of(account)],
    )


def factor_of(account: User) -> dict[str, Any]:
    """What a page tells of a second factor: two queries where there is none, three else."""
    factor = SecondFactor.objects.filter(user=account).first()
    left = factor.recovery_codes.filter(used_at=None).count() if factor else 0
    return {
        "factor": factor, "left": left, "passkeys": list(factor.passkeys.all()) if factor else [],
        "may_add_passkeys": passkeys.site() is not None,
        # The last one stays where there must be one.
        "may_remove_last": not second_factor.is_kept(account),
    }


def _shown(session: PanelSession, request: HttpRequest) -> dict[str, Any]:
    return {
        "name": sessions.name_of(session.session_key), "browser": sessions.browser(session.browser),
        "user_agent": session.browser, "ip": session.ip, "began": moment(session.began_at),
        "seen": moment(session.seen_at), "is_this": session.session_key == request.session.session_key,
    }


def change_password(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """Another password, for the one that holds; the account's other sessions end."""
    account = door.account(request)
    form = OwnPasswordForm(request, request.POST or None, door=door)
    if request.method == "POST" and form.is_valid():
        try:
            set_account_password(
                account, form.cleaned_data["new"], keep=request.session.session_key, actor=account,
                ip=client_ip(request),
            )
        except ServiceError as error:
            form.add_error("new", str(error))
        else:
            update_session_auth_hash(request, account)
            messages.success(
                request, _("Your password is changed; wherever else you were signed in, you no longer are.")
            )
            return HttpResponseRedirect(door.url("own"))
    return confirm(
        request, door, form, _("Change your password"), _("Change password"),
        _("Wherever else you are signed in, you are signed out."),
    )


@require_POST
def end_session(request: HttpRequest, name: str, door: Door = ADMIN) -> HttpResponse:
    """Sign one of the account's own sessions out."""
    account = door.account(request)
    try:
        sessions.end(account, name, actor=account, ip=client_ip(request))
    except ServiceError as error:
        messages.warning(request, str(error))
    else:
        messages.success(request, _("Signed out there."))
    return HttpResponseRedirect(door.url("own"))


@require_POST
def end_all_sessions(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """Sign out everywhere: here too, unless "others" is asked for."""
    account = door.account(request)
    but = request.session.session_key if "others" in request.POST else None
    ended = sessions.end_all(account, but=but, actor=account, ip=client_ip(request))
    if but is None:
        visits.leave(request, visits.SIGNED_OUT, ip=client_ip(request))
        request.session.flush()
        messages.success(request, _("You are signed out everywhere."))
        return HttpResponseRedirect(reverse(door.sign_in))
    messages.success(request, ngettext(
        "Signed out {count} other session.", "Signed out {count} other sessions.", ended
    ).format(count=ended))
    return HttpResponseRedirect(door.url("own"))


def enrol(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """Set up an authenticator app; shows the recovery codes when it is done."""
    account = door.account(request)
    factor = second_factor.of(account)
    if factor and factor.has_app:
        return HttpResponseRedirect(door.url("own"))
    secret = second_factor.unseal(request.session.get(OFFERED, "")) or second_factor.new_secret()
    form = EnrolForm(request, request.POST or None, door=door)
    if request.method == "POST" and form.is_valid():
        try:
            codes = second_factor.add(
                account, secret, form.cleaned_data["code"], keep=request.session.session_key, ip=client_ip(request)
            )
        except ServiceError as error:
            form.add_error(error.field or None, str(error))
        else:
            request.session.pop(OFFERED, None)
            door.verified(request, True)
            return shown_codes(request, door, codes, _("Your second factor is set up"))
    request.session[OFFERED] = second_factor.seal(secret)
    return door.page(
        request, "account/enrol.html", _("Set up a second factor"), form=form,
        required=factor is None and second_factor.is_required(account), may_add_passkeys=passkeys.site() is not None,
        secret=" ".join(secret[at:at + 4] for at in range(0, 32, 4)),
        # Made here of the account's address and our host name, with only black and white paths in it.
        qr_code=mark_safe(second_factor.qr_code(second_factor.uri(account, secret))),  # noqa: S308
    )


def renew_recovery_codes(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """Ten new recovery codes, for password and code."""
    account = door.account(request)
    form = own_code_form(request, account, door)
    if form is None:
        return HttpResponseRedirect(door.url("own"))
    if request.method == "POST" and form.is_valid():
        codes = second_factor.renew_recovery_codes(account, ip=client_ip(request))
        return shown_codes(request, door, codes, _("Your new recovery codes"))
    return confirm(
        request, door, form, _("New recovery codes"), _("Make new ones"),
        _("The ones that you have now no longer work then."),
    )


def remove(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """Remove the own authenticator app, for password and code."""
    account = door.account(request)
    form = own_code_form(request, account, door)
    factor = second_factor.of(account)
    if form is None or factor is None or not factor.has_app:
        return HttpResponseRedirect(door.url("own"))
    is_last = not factor.passkeys.exists()
    if is_last and second_factor.is_kept(account):
        return HttpResponseRedirect(door.url("own"))
    if request.method == "POST" and form.is_valid():
        try:
            is_left = second_factor.remove_app(
                account, keep=request.session.session_key, ip=client_ip(request)
            )
        except ServiceError as error:
            form.add_error(None, str(error))
        else:
            tell_removed(request, door, is_left)
            return HttpResponseRedirect(door.url("own"))
    alone = f"{door.weakens} "
    return confirm(
        request, door, form, _("Remove your authenticator app"), pgettext("a second factor", "Remove"),
        (alone if is_last else "") + _("To change to another phone, remove it here and set it up again there."),
        harmful=True,
    )


def tell_removed(request: HttpRequest, door: Door, is_left: bool) -> None:
    """A part of the second factor is gone; with the last part all of it."""
    door.verified(request, is_left)
    messages.success(request, _("Removed.") if is_left else str(door.is_weaker))


def own_code_form(request: HttpRequest, account: User, door: Door) -> OwnCodeForm | None:
    """None when the account has no second factor."""
    return OwnCodeForm(request, request.POST or None, door=door) if second_factor.of(account) else None


def shown_codes(request: HttpRequest, door: Door, codes: list[str], title: str) -> HttpResponse:
    """Recovery codes, the one time that they are shown; to the account's page when there are no new ones."""
    if not codes:
        messages.success(request, title)
        return HttpResponseRedirect(door.url("own"))
    return door.page(request, "account/codes.html", title, codes=codes)


def confirm(
    request: HttpRequest, door: Door, form: forms.Form, title: str, button: str, sentence: str, *,
    harmful: bool = False,
) -> HttpResponse:
    """An act that asks first; with a passkey in place of the code where the form takes one."""
    return door.page(
        request, "admin/posthouse/confirm.html", title, form=form, button=button, sentence=sentence, harmful=harmful,
        back=door.url("own"), ask=door.url("prove-passkey"),
    )
