"""The switch of languages: for this browser, and for whoever is signed in, or signs in next, for their letters too."""

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.i18n import LANGUAGE_QUERY_PARAMETER, set_language

from panel.mailboxes.language import choose_language
from panel.tenants.models import User
from panel.tenants.sign_in.language import forget_choice, just_chosen, remember_choice
from panel.tenants.sign_in.whose import language_of


def choose(request: HttpRequest) -> HttpResponseBase:
    chosen = request.POST.get(LANGUAGE_QUERY_PARAMETER, "")
    answer = set_language(request)
    if request.method == "POST" and chosen in dict(settings.LANGUAGES):
        if isinstance(request.user, User):
            choose_language(request.user, chosen)
            forget_choice(request, answer)
        else:
            remember_choice(answer, chosen)
    return answer


def of_who_came_in(request: HttpRequest, account: User) -> str:
    """The language of whoever signed in just now: what they chose on the way in is kept from now on. Empty: none."""
    if chosen := just_chosen(request):
        choose_language(account, chosen)
        return chosen
    return language_of(account)
