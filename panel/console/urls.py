"""Every address of the console. Each view is declared (access.py), and stands in tests/console/expected.py."""

from django.urls import include, path
from django.views.i18n import set_language

from panel.console import account, audit_log, domain_names, domains, home, people, sign_in
from panel.console.access import anybody

app_name = "console"

OF_A_TENANT = [
    path("", home.home, name="home"),
    path("domains/", domains.domains, name="domains"),
    path("domains/add/", domains.add, name="add-domain"),
    path("domains/<int:domain>/", domains.domain, name="domain"),
    path("domains/<int:domain>/check/", domains.check, name="check-domain"),
    path("domains/<int:domain>/zone/", domains.zone, name="domain-zone"),
    path("domains/<int:domain>/letter/", domains.letter, name="domain-letter"),
    path("domains/<int:domain>/names/", domain_names.names, name="domain-names"),
    path(
        "domains/<int:domain>/names/<int:domain_alias>/remove/", domain_names.remove_name, name="remove-domain-name"
    ),
    path("domains/<int:domain>/close/", domain_names.close, name="close-domain"),
    path("domains/<int:domain>/restore/", domain_names.restore, name="restore-domain"),
    path("people/", people.people, name="people"),
    path("people/add/", people.add, name="add-member"),
    path("people/<int:member>/", people.change, name="member"),
    path("people/<int:member>/remove/", people.remove, name="remove-member"),
    path("audit/", audit_log.log, name="audit"),
]
OF_AN_ACCOUNT = [
    path("", account.own, name="account-own"),
    path("password/", account.password, name="account-password"),
    path("sessions/end/", account.end_all_sessions, name="account-end-all-sessions"),
    path("sessions/<slug:name>/end/", account.end_session, name="account-end-session"),
    path("second-factor/", account.second_factor, name="account-second-factor"),
    path("second-factor/remove/", account.remove_second_factor, name="account-remove-second-factor"),
    path("recovery-codes/", account.recovery_codes, name="account-recovery-codes"),
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
    path("account/", include(OF_AN_ACCOUNT)),
    path("t/<int:tenant>/", include(OF_A_TENANT)),
    path("me/", include(OF_A_PERSON)),
]
