"""Whose request it is, behind an HTTPS proxy too: REMOTE_ADDR is the client's address.

A proxy appends the address it sees to X-Forwarded-For, so the last one is the proxy's word and
all before it the client's own, which anybody can forge. Without POSTHOUSE_HTTPS_PROXY nobody
stands before the panel whose word it would be, and the header is not looked at.
"""

import ipaddress
from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse


class ClientAddress:
    """Django's middleware; before all that records an address or counts by it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.ENVIRONMENT.https_proxy:
            last = request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
            try:
                request.META["REMOTE_ADDR"] = str(ipaddress.ip_address(last))
            except ValueError:
                pass  # not a proxy's: what connected is what is known
        return self.get_response(request)


def client_ip(request: HttpRequest) -> str | None:
    """The client's address, or None (a Unix socket)."""
    return request.META.get("REMOTE_ADDR") or None
