"""Answers mail clients before the rest of the panel sees them.

They, and the servers that want a policy, ask under names of the hosted domains: one of
`servers.PREFIXES` before it, or itself. ALLOWED_HOSTS holds none of these: they are let in
here, for these few addresses alone, and neither sessions, cookies nor forms are behind them. Whoever comes by another
name gets the same "nothing here" as for a domain that isn't answered.
"""

from collections.abc import Callable

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.request import split_domain_port, validate_host
from django.urls import Resolver404, resolve

from panel.autoconfig import views
from panel.autoconfig.servers import read_domain

URLS = "panel.autoconfig.urls"


class Autoconfig:
    """Django's middleware; the first of all, since each of the others asks for an allowed host."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            match = resolve(request.path_info, URLS)
        except Resolver404:
            return self.get_response(request)
        host = _host(request)
        try:
            if host is None:
                raise Http404
            response = _to_https(request, match.func) or match.func(request, host)
        except Http404:
            response = HttpResponse("Nothing here.\n", status=404, content_type="text/plain; charset=utf-8")
        response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        # Under our own names alone: a customer's domain may have a site that speaks no HTTPS.
        if settings.SECURE_HSTS_SECONDS and request.is_secure() and host and validate_host(
            host, settings.ALLOWED_HOSTS
        ):
            response.headers["Strict-Transport-Security"] = f"max-age={settings.SECURE_HSTS_SECONDS}"
        return response


def _host(request: HttpRequest) -> str | None:
    """The name that was asked, if it is ours or one of a domain that is answered."""
    name, _ = split_domain_port(request.META.get("HTTP_HOST", ""))
    if not name:
        return None
    return name if validate_host(name, settings.ALLOWED_HOSTS) or read_domain(name) else None


def _to_https(request: HttpRequest, view: object) -> HttpResponse | None:
    """Off a connection in the clear, to our own name, for which there is a certificate.

    Outlook looks for this redirect at http://autodiscover.DOMAIN. Thunderbird asks in the clear only when
    nothing answered by HTTPS, and is served: its user sees and confirms the servers' names. A policy is asked for in
    the clear by our own proxy alone.
    """
    environment = settings.ENVIRONMENT
    if not environment.https_proxy or request.is_secure() or view in (views.thunderbird, views.mta_sts):
        return None
    return HttpResponseRedirect(f"https://{environment.hostname}{request.get_full_path()}")
