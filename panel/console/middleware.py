"""What the browser may do with our pages."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

# unfold runs on Alpine (`new Function`) and inline styles; with less its log-in page can't be used (tried).
# No inline script anywhere, nothing from elsewhere.
ADMIN = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
STRICT = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)


# Of what a page could ask of a device ours use passkeys and the clipboard alone.
UNUSED = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"


class BrowserPolicies:
    """Adds to every answer what it hasn't said itself. HSTS is Django's SecurityMiddleware's."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", ADMIN if request.path.startswith("/admin/") else STRICT)
        response.headers.setdefault("Referrer-Policy", "same-origin")
        response.headers.setdefault("Permissions-Policy", UNUSED)
        response.headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        if not getattr(response, "xframe_options_exempt", False):
            response.headers.setdefault("X-Frame-Options", "DENY")
        return response
