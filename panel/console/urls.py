"""Every address of the console. Each view is declared (access.py), and stands in tests/console/expected.py."""

from django.urls import include, path
from django.views.i18n import set_language

from panel.console import (
    account,
    aliases,
    app_passwords,
    audit_log,
    home,
    mailbox,
    mailbox_sheet,
    mailboxes,
    people,
    sign_in,
)
from panel.console.access import anybody

app_name = "console"

OF_A_TENANT = [
    path("", home.home, name="home"),
    path("mailboxes/", mailboxes.mailboxes, name="mailboxes"),
    path("mailboxes/add/", mailboxes.add, name="add-mailbox"),
    path("mailboxes/add/many/", mailbox_sheet.add, name="add-mailboxes"),
    path("mailboxes/export/", mailbox_sheet.export, name="export-mailboxes"),
    path("mailboxes/<int:mailbox>/", mailbox.mailbox, name="mailbox"),
    path("mailboxes/<int:mailbox>/change/", mailbox.change, name="mailbox-change"),
    path("mailboxes/<int:mailbox>/password/", mailbox.password, name="mailbox-password"),
    path("mailboxes/<int:mailbox>/suspend/", mailbox.stop, name="suspend-mailbox"),
    path("mailboxes/<int:mailbox>/resume/", mailbox.go_on, name="resume-mailbox"),
    path("mailboxes/<int:mailbox>/close/", mailbox.shut, name="close-mailbox"),
    path("mailboxes/<int:mailbox>/restore/", mailbox.reopen, name="restore-mailbox"),
    path("mailboxes/<int:mailbox>/app-passwords/add/", app_passwords.add, name="add-app-password"),
    path("mailboxes/<int:mailbox>/passwords/<int:credential>/freeze/", app_passwords.freeze, name="freeze-password"),
    path(
        "mailboxes/<int:mailbox>/passwords/<int:credential>/unfreeze/", app_passwords.unfreeze,
        name="unfreeze-password",
    ),
    path("mailboxes/<int:mailbox>/passwords/<int:credential>/revoke/", app_passwords.revoke, name="revoke-password"),
    path("aliases/", aliases.aliases, name="aliases"),
    path("aliases/add/", aliases.add, name="add-alias"),
    path("aliases/<int:alias>/", aliases.change, name="alias"),
    path("aliases/<int:alias>/remove/", aliases.remove, name="remove-alias"),
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
