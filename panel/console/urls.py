"""Every address of the console. Each view is declared (access.py), and stands in tests/console/expected.py."""

from django.urls import include, path
from django.views.i18n import set_language

from panel.console import audit_log, home, people, sign_in
from panel.console.access import anybody

app_name = "console"

OF_A_TENANT = [
    path("", home.home, name="home"),
    path("people/", people.people, name="people"),
    path("people/add/", people.add, name="add-member"),
    path("people/<int:member>/", people.change, name="member"),
    path("people/<int:member>/remove/", people.remove, name="remove-member"),
    path("audit/", audit_log.log, name="audit"),
]
OF_A_PERSON = [
    path("", home.me, name="me"),
]

urlpatterns = [
    path("", home.start, name="start"),
    path("sign-in/", anybody(sign_in.ConsoleSignIn.as_view()), name="sign-in"),
    path("sign-in/code/", anybody(sign_in.ConsoleSignInCode.as_view()), name="sign-in-code"),
    path("sign-out/", anybody(sign_in.sign_out), name="sign-out"),
    path("language/", anybody(set_language), name="language"),
    path("tenants/", home.tenants, name="tenants"),
    path("t/<int:tenant>/", include(OF_A_TENANT)),
    path("me/", include(OF_A_PERSON)),
]
