"""Every address of the console. Each view is declared (access.py), and stands in tests/console/expected.py."""

from django.urls import include, path
from django.views.i18n import set_language

from panel.console import (
    account,
    audit_log,
    domain_names,
    domains,
    home,
    message,
    message_log,
    organisation,
    own_mail,
    own_mailbox,
    own_passwords,
    own_programs,
    own_rules,
    own_sent,
    own_sign_ins,
    people,
    search,
    sign_in,
    usage,
)
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
    path("messages/", message_log.log, name="messages"),
    path("messages/<slug:message>/", message.message, name="message"),
    path("messages/<slug:message>/try/", message.try_now, name="message-try"),
    path("messages/<slug:message>/give-up/", message.give_up, name="message-give-up"),
    path("usage/", usage.usage, name="usage"),
    path("usage/export/", usage.export, name="usage-export"),
    path("settings/", organisation.settings, name="settings"),
    path("settings/close/", organisation.close, name="close-tenant"),
    path("settings/undo-closing/", organisation.undo, name="undo-closing"),
    path("search/", search.search, name="search"),
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
    path("", own_mailbox.home, name="me"),
    path("settings/", own_programs.setup, name="me-settings"),
    path("apple.mobileconfig", own_programs.apple, name="me-apple"),
    path("mail/", own_mail.mail, name="me-mail"),
    path("mail/<str:letter>/", own_mail.letter, name="me-letter"),
    path("mail/<str:letter>/<int:part>/", own_mail.attachment, name="me-attachment"),
    path("passwords/", own_passwords.passwords, name="me-passwords"),
    path("passwords/add/", own_passwords.add, name="me-add-password"),
    path("passwords/<int:password>/freeze/", own_passwords.freeze, name="me-freeze-password"),
    path("passwords/<int:password>/unfreeze/", own_passwords.unfreeze, name="me-unfreeze-password"),
    path("passwords/<int:password>/revoke/", own_passwords.revoke, name="me-revoke-password"),
    path("rules/", own_rules.rules, name="me-rules"),
    path("sent/", own_sent.sent, name="me-sent"),
    path("sent/<slug:sent>/", own_sent.message, name="me-sent-message"),
    path("sign-ins/", own_sign_ins.sign_ins, name="me-sign-ins"),
    path("sign-ins/password/", own_sign_ins.password, name="me-password"),
    path("sign-ins/<int:sign_in>/freeze/", own_sign_ins.freeze, name="me-freeze-sign-in"),
    path("sign-ins/sessions/end/", own_sign_ins.end_sessions, name="me-end-sessions"),
    path("sign-ins/sessions/<slug:name>/end/", own_sign_ins.end_session, name="me-end-session"),
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
