"""Whoever signs in sees the language that was chosen once, in whichever browser."""

from django.conf import settings
from django.http import HttpResponse


def in_language(answer: HttpResponse, language: str) -> HttpResponse:
    """The answer, from which on the browser asks for this language; as it is where none was chosen."""
    if language in dict(settings.LANGUAGES):
        # As django.views.i18n.set_language keeps it.
        answer.set_cookie(
            settings.LANGUAGE_COOKIE_NAME, language, max_age=settings.LANGUAGE_COOKIE_AGE,
            path=settings.LANGUAGE_COOKIE_PATH, domain=settings.LANGUAGE_COOKIE_DOMAIN,
            secure=settings.LANGUAGE_COOKIE_SECURE, httponly=settings.LANGUAGE_COOKIE_HTTPONLY,
            samesite=settings.LANGUAGE_COOKIE_SAMESITE,  # type: ignore[arg-type] # a str to the stubs
        )
    return answer
