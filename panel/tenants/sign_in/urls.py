"""An account's own pages. Each is behind the admin's door: nobody is let in by default."""

from django.contrib import admin
from django.urls import path

from panel.tenants.sign_in import account, passkey_pages

app_name = "account"
urlpatterns = [
    path("", admin.site.admin_view(account.own), name="own"),
    path("password/", admin.site.admin_view(account.change_password), name="password"),
    path("sessions/end/", admin.site.admin_view(account.end_all_sessions), name="end-all-sessions"),
    path("sessions/<slug:name>/end/", admin.site.admin_view(account.end_session), name="end-session"),
    path("second-factor/", admin.site.admin_view(account.enrol), name="second-factor"),
    path("second-factor/remove/", admin.site.admin_view(account.remove), name="remove-second-factor"),
    path("recovery-codes/", admin.site.admin_view(account.renew_recovery_codes), name="recovery-codes"),
    path("passkeys/add/", admin.site.admin_view(passkey_pages.add), name="add-passkey"),
    path("passkeys/offer/", admin.site.admin_view(passkey_pages.offer), name="offer-passkey"),
    path("passkeys/prove/", admin.site.admin_view(passkey_pages.prove), name="prove-passkey"),
    path("passkeys/<int:passkey>/rename/", admin.site.admin_view(passkey_pages.rename), name="rename-passkey"),
    path("passkeys/<int:passkey>/remove/", admin.site.admin_view(passkey_pages.remove), name="remove-passkey"),
]
