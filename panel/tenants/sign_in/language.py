"""Whoever signs in sees the language that was chosen once, in whichever browser.

What somebody chose on the page of the sign-in itself counts more than what is kept: they have just said so.
"""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

CHOICE_S = 15 * 60  # so long the page of the sign-in may stand open after its language was chosen


def in_language(request: HttpRequest, answer: HttpResponse, language: str) -> HttpResponse:
    """The answer, from which on the browser asks for this language; as it is where none was chosen."""
    if language in dict(settings.LANGUAGES):
        _keep(answer, settings.LANGUAGE_COOKIE_NAME, language, settings.LANGUAGE_COOKIE_AGE)
    forget_choice(request, answer)
    return answer


def just_chosen(request: HttpRequest) -> str:
    """The language that was chosen in this browser on the way in; empty: none."""
    chosen = request.COOKIES.get(_choice(), "")
    return chosen if chosen in dict(settings.LANGUAGES) else ""


def remember_choice(answer: HttpResponseBase, language: str) -> None:
    _keep(answer, _choice(), language, CHOICE_S)


def forget_choice(request: HttpRequest, answer: HttpResponseBase) -> None:
    if _choice() in request.COOKIES:
        _keep(answer, _choice(), "", 0)


def _choice() -> str:
    return f"{settings.LANGUAGE_COOKIE_NAME}_choice"


def _keep(answer: HttpResponseBase, name: str, language: str, age_s: int | None) -> None:
    """As django.views.i18n.set_language keeps it."""
    answer.set_cookie(
        name, language, max_age=age_s, path=settings.LANGUAGE_COOKIE_PATH, domain=settings.LANGUAGE_COOKIE_DOMAIN,
        secure=settings.LANGUAGE_COOKIE_SECURE, httponly=settings.LANGUAGE_COOKIE_HTTPONLY,
        samesite=settings.LANGUAGE_COOKIE_SAMESITE,  # type: ignore[arg-type] # a str to the stubs
    )
