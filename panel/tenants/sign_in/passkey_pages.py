"""The pages of an own sign-in on which passkeys are added, renamed and removed, and what their script asks."""

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import pgettext
from django.views.decorators.http import require_POST

from panel.client_address import client_ip
from panel.tenants.changes import ServiceError
from panel.tenants.models import Passkey, User
from panel.tenants.sign_in import passkeys, second_factor, sessions
from panel.tenants.sign_in.account import confirm, own_code_form, shown_codes, tell_removed
from panel.tenants.sign_in.door import ADMIN, Door
from panel.tenants.sign_in.forms import AddPasskeyForm, OfferForm, PasskeyNameForm
from panel.tenants.sign_in.views import needed, not_now


def add(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """Make a passkey and give it to the account; shows recovery codes with the first second factor."""
    account = door.account(request)
    if passkeys.site() is None:
        return HttpResponseRedirect(door.url("own"))
    name = sessions.browser(request.headers.get("User-Agent", ""))
    form = AddPasskeyForm(request, request.POST or None, door=door, initial={"name": name})
    if request.method == "POST" and form.is_valid():
        try:
            codes = passkeys.add(
                account, form.cleaned_data["passkey"], passkeys.spent(request, passkeys.Purpose.ADD),
                name=form.cleaned_data["name"], keep=request.session.session_key, ip=client_ip(request),
            )
        except ServiceError as error:
            form.add_error(error.field or None, str(error))
        else:
            door.verified(request, True)
            return shown_codes(request, door, codes, _("Your passkey is set up"))
    return door.page(
        request, "account/passkey.html", _("Add a passkey"), form=form, ask=door.url("offer-passkey"),
        required=second_factor.of(account) is None and second_factor.is_required(account),
    )


@require_POST
def offer(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """What the browser needs to make one, for the account's password: a wrong one leaves no key behind there."""
    account = door.account(request)
    form = OfferForm(request, request.POST, door=door)
    if not form.is_valid():
        return not_now(" ".join(str(error) for errors in form.errors.values() for error in errors))
    return needed(lambda: passkeys.to_add(request, account))


@require_POST
def prove(request: HttpRequest, door: Door = ADMIN) -> HttpResponse:
    """What the browser needs to use one of the account's, in place of a code."""
    account = door.account(request)
    return needed(lambda: passkeys.to_use(request, passkeys.Purpose.PROVE, account))


def rename(request: HttpRequest, passkey: int, door: Door = ADMIN) -> HttpResponse:
    account = door.account(request)
    found = _found(account, passkey)
    form = PasskeyNameForm(request.POST or None, initial={"name": found.name})
    if request.method == "POST" and form.is_valid():
        try:
            passkeys.rename(account, found, form.cleaned_data["name"], ip=client_ip(request))
        except ServiceError as error:
            form.add_error(error.field or None, str(error))
        else:
            return HttpResponseRedirect(door.url("own"))
    return confirm(
        request, door, form, _("Rename the passkey"), _("Save"),
        _("The name stands here and in your account's history."),
    )


def remove(request: HttpRequest, passkey: int, door: Door = ADMIN) -> HttpResponse:
    """Take one away, for password and code."""
    account = door.account(request)
    found, form = _found(account, passkey), own_code_form(request, account, door)
    is_last = not found.factor.has_app and found.factor.passkeys.count() == 1
    if form is None or (is_last and second_factor.is_kept(account)):
        return HttpResponseRedirect(door.url("own"))
    if request.method == "POST" and form.is_valid():
        try:
            is_left = passkeys.remove(
                account, found, keep=request.session.session_key, ip=client_ip(request)
            )
        except ServiceError as error:
            form.add_error(None, str(error))
        else:
            tell_removed(request, door, is_left)
            return HttpResponseRedirect(door.url("own"))
    alone = f"{door.weakens} "
    return confirm(
        request, door, form, _("Remove the passkey {name}").format(name=found.name),
        pgettext("a second factor", "Remove"),
        (alone if is_last else "") + _("Delete it on the device or in the password manager as well."), harmful=True,
    )


def _found(account: User, passkey: int) -> Passkey:
    """The account's own. Raises Http404."""
    found = Passkey.objects.select_related("factor").filter(pk=passkey, factor__user=account).first()
    if found is None:
        raise Http404
    return found
