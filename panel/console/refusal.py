"""What is said instead of a page: not for this role, not now, nothing there, our fault."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template import loader
from django.utils.translation import gettext as _

from panel.console.frame import page
from panel.console.places import Role, TenantPlace
from panel.rules.status import Status
from panel.tenants.models import Membership

MOST_NAMED = 3  # of those who may


def role_too_small(request: HttpRequest, place: TenantPlace, needs: Role) -> HttpResponse:
    """403: says what one is, what it takes, and who can do it."""
    if place.visit:
        return only_looking(request, place)
    who = _who_may(place, needs)
    sentence = _("You are here as {role}; this takes the role {needs}.").format(
        role=place.role.word, needs=needs.word
    )
    asked = _(" Ask {who}.").format(who=who) if who else ""
    return _refused(request, place, _("This isn't for your role"), sentence + asked)


def only_looking(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """403: the provider's staff see what a viewer sees."""
    sentence = _("You are looking into {tenant} as provider staff, and see what a viewer sees. Changes are made by "
                 "its own people, or in your admin.").format(tenant=place.tenant)
    return _refused(request, place, _("You only look here"), sentence)


def stopped(request: HttpRequest, place: TenantPlace) -> HttpResponse:
    """403: a tenant that is suspended or closed is only read."""
    sentence = (
        _("{tenant} is closed: everything can be read, and nothing changed. The settings say whether it can be undone.")
        if place.tenant.status == Status.CLOSED
        else _("{tenant} is {word}: everything can be read, and nothing changed. Ask your provider.")
    ).format(tenant=place.tenant, word=_("closed") if place.status is Status.CLOSED else _("suspended"))
    return _refused(request, place, _("Nothing was changed"), sentence)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler404."""
    return _error(
        request, 404, _("There is nothing here"),
        _("The address is wrong, or what it named is gone, or it isn't yours to see. Look for it from the start."),
    )


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler403."""
    return _error(
        request, 403, _("This isn't yours to see"),
        _("The account that you are signed in with may not. Sign in with another, or ask your provider."),
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Django's CSRF_FAILURE_VIEW: mostly a form that stood open while one signed in anew."""
    return _error(
        request, 403, _("That didn't go through, and nothing was changed"),
        _("The form is older than your sign-in, or your browser refuses our cookies. Go back, load the page "
          "again and send it once more."),
    )


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Django's handler400."""
    return HttpResponse(b"Bad request", status=400, content_type="text/plain")


def failed(request: HttpRequest) -> HttpResponse:
    """Django's handler500: asks neither the database nor the session, which may be what failed."""
    context = {
        "title": _("Something went wrong here"),
        "sentence": _("It isn't your fault, and it is in our log. Try again in a minute; mail goes on meanwhile."),
    }
    return HttpResponse(loader.render_to_string("console/error.html", context), status=500)


def _refused(request: HttpRequest, place: TenantPlace, heading: str, sentence: str) -> HttpResponse:
    return page(
        request, place, "console/refused.html", heading, status=403, sentence=sentence
    )


def _who_may(place: TenantPlace, needs: Role) -> str:
    """The tenant's own members of that role or above, as far as they are few."""
    roles = [each.stored for each in Role if each >= needs]
    found = Membership.objects.filter(tenant=place.tenant, role__in=roles, user__is_active=True)
    named = [str(email) for email in found.order_by("user__email").values_list("user__email", flat=True)[:MOST_NAMED]]
    if len(named) < 2:
        return "".join(named)
    return _("{some} or {last}").format(some=_(", ").join(named[:-1]), last=named[-1])


def _error(request: HttpRequest, status: int, title: Any, sentence: Any) -> HttpResponse:
    return render(request, "console/error.html", {"title": title, "sentence": sentence}, status=status)
