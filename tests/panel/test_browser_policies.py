"""What every kind of answer tells the browser, behind an HTTPS proxy: pages, files, errors, what mail clients ask."""

import runpy
from dataclasses import replace

import pytest
from django.test import Client

import panel.settings
from panel.console.middleware import ADMIN, STRICT, UNUSED
from panel.operations.services import create_account
from tests.support import world

pytestmark = [pytest.mark.django_db, pytest.mark.once("postgresql")]

OURS, THEIRS = "mx.posthouse.test", "autoconfig.demo.test"
AUTOCONFIG, PASSWORD = "/.well-known/autoconfig/mail/config-v1.1.xml", "an unusual password"
NOTHING = "default-src 'none'; frame-ancestors 'none'"
# Path to the host that is asked, the answer's code, and its policy.
KINDS = {
    "/sign-in/": (OURS, 200, STRICT), "/admin/login/": (OURS, 200, ADMIN), "/admin/login/forgot/": (OURS, 200, ADMIN),
    "/t/1/": (OURS, 302, STRICT), "/admin/": (OURS, 302, ADMIN), "/static/console/console.js": (OURS, 200, STRICT),
    "/static/console/vendor/inter-5.3.0/inter-latin-wght-normal.woff2": (OURS, 200, STRICT),
    "/nothing/": (OURS, 404, STRICT), "/static/nothing.js": (OURS, 404, STRICT), "/sign-out/": (OURS, 405, STRICT),
    "/fails/": (OURS, 500, STRICT), f"{AUTOCONFIG}?emailaddress=a@demo.test": (OURS, 200, NOTHING),
    "/": ("evil.example", 400, STRICT),
}
YEAR = "max-age=31536000"


@pytest.fixture
def browser(settings, monkeypatch) -> Client:
    """Behind a proxy that speaks HTTPS, with the settings that follow from that."""
    monkeypatch.setenv("POSTHOUSE_HTTPS_PROXY", "yes")
    for name, value in runpy.run_path(panel.settings.__file__).items():
        if name.startswith(("SECURE_", "SESSION_", "CSRF_", "LANGUAGE_COOKIE_")):
            setattr(settings, name, value)
    settings.ENVIRONMENT = replace(settings.ENVIRONMENT, https_proxy=True)
    return Client(headers={"host": OURS, "x-forwarded-proto": "https"}, raise_request_exception=False)


def test_each_kind_of_answer_has_every_policy(browser, settings, monkeypatch):
    world.domain("demo.test", world.tenant())

    def fails(*arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("django.middleware.common.CommonMiddleware.process_response", lambda self, request, response: (
        fails() if request.path == "/fails/" else response
    ))
    wrong = {}
    for path, (host, code, policy) in KINDS.items():
        answer = browser.get(path, headers={"host": host})
        said = {
            "code": answer.status_code == code, "policy": answer.get("Content-Security-Policy") == policy,
            "HSTS": answer.get("Strict-Transport-Security") == YEAR,
            "frames": answer.get("X-Frame-Options") == "DENY", "opener": answer.get("Cross-Origin-Opener-Policy"),
            "referrer": answer.get("Referrer-Policy") in ("same-origin", "no-referrer"),
            "devices": answer.get("Permissions-Policy") == UNUSED,
            "sniffing": answer.get("X-Content-Type-Options") == "nosniff",
        }
        if not all(said.values()):
            wrong[path] = [each for each, holds in said.items() if not holds], answer.status_code
    assert not wrong
    theirs = browser.get(AUTOCONFIG, headers={"host": THEIRS})
    assert theirs.status_code == 200 and "Strict-Transport-Security" not in theirs, "their site may speak no HTTPS"
    assert browser.get("/sign-in/", headers={"x-forwarded-proto": "http"}).headers["Location"].startswith("https://")


def test_each_cookie_is_for_https_and_this_host_alone_and_the_sessions_is_for_no_script(browser):
    """Named so that no other site below the same domain can put one in its place (RFC 6265bis §4.1.3.2)."""
    create_account(email="ann@letters.test", password=PASSWORD, actor=None)
    browser.get("/sign-in/")
    browser.post("/sign-in/", {"username": "ann@letters.test", "password": PASSWORD})
    browser.post("/language/", {"language": "ja"})
    assert {"__Host-sessionid", "__Host-csrftoken", "__Host-django_language"} <= set(browser.cookies)
    for name, cookie in browser.cookies.items():
        assert cookie["secure"] and cookie["samesite"] == "Lax", name
        assert cookie["httponly"] or name == "__Host-csrftoken", name
        assert name.startswith("__Host-") and cookie["path"] == "/" and not cookie["domain"], name
