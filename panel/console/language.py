"""The switch of languages: for this browser, and for whoever is signed in: letters, and the next browser."""

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.i18n import LANGUAGE_QUERY_PARAMETER, set_language

from panel.mailboxes.language import choose_language
from panel.tenants.models import User


def choose(request: HttpRequest) -> HttpResponseBase:
    chosen = request.POST.get(LANGUAGE_QUERY_PARAMETER, "")
    if request.method == "POST" and isinstance(request.user, User) and chosen in dict(settings.LANGUAGES):
        choose_language(request.user, chosen)
    return set_language(request)
