"""Whose request it is: the proxy's word, never the client's."""

from dataclasses import replace

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from panel.client_address import ClientAddress, client_ip


def seen(settings, proxy: bool, remote: str = "127.0.0.1", **headers: str) -> str | None:
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, https_proxy=proxy)
    request = RequestFactory().get("/", REMOTE_ADDR=remote, headers=headers)
    ClientAddress(lambda request: HttpResponse())(request)
    return client_ip(request)


@pytest.mark.parametrize(("forwarded", "expected"), [
    ("203.0.113.9", "203.0.113.9"),
    ("127.0.0.1, 198.51.100.1,203.0.113.9", "203.0.113.9"),
    ("203.0.113.9, 2001:db8::7", "2001:db8::7"),
    ("203.0.113.9, <script>", "127.0.0.1"),
    ("203.0.113.9,", "127.0.0.1"),
    ("", "127.0.0.1"),
])
def test_behind_a_proxy_it_is_what_the_proxy_appended(settings, forwarded, expected):
    assert seen(settings, True, **{"x-forwarded-for": forwarded}) == expected


def test_without_a_proxy_nobody_may_say_another(settings):
    assert seen(settings, False, "198.51.100.4", **{"x-forwarded-for": "203.0.113.9"}) == "198.51.100.4"


def test_over_a_unix_socket_it_is_unknown(settings):
    assert seen(settings, False, "") is None
