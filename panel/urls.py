"""Every address of the panel; those that mail clients ask are in panel/autoconfig/urls.py, before these."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from panel.console import password_reset
from panel.operations import search_page
from panel.tenants.sign_in.views import SignIn, SignInCode

admin.autodiscover()

urlpatterns = [
    # Before the admin's own, whose names lead here as well.
    path("admin/login/", SignIn.as_view()),
    path("admin/login/code/", SignInCode.as_view(), name="sign-in-code"),
    path("admin/login/forgot/", password_reset.forgot, name="forgot"),
    path("admin/login/reset/<str:token>/", password_reset.reset, name="reset"),
    path("admin/password_change/", RedirectView.as_view(pattern_name="account:password")),
    path("admin/account/", include("panel.tenants.sign_in.urls")),
    # In place of unfold's, which has this name.
    path("admin/search/", search_page.page, name="search"),
    path("admin/", admin.site.urls),
    path("", include("panel.console.urls")),
]
handler400 = "panel.console.refusal.bad_request"
handler403 = "panel.console.refusal.forbidden"
handler404 = "panel.console.refusal.not_found"
handler500 = "panel.console.refusal.failed"
