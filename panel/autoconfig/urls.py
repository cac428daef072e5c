"""The addresses that mail clients ask, in the case that each of them writes, and the one that mail servers ask."""

from django.urls import path, re_path

from panel.autoconfig import views

urlpatterns = [
    path(".well-known/autoconfig/mail/config-v1.1.xml", views.thunderbird),
    path("mail/config-v1.1.xml", views.thunderbird),
    re_path(r"^(?i:autodiscover/autodiscover\.xml)\Z", views.outlook),
    re_path(r"^(?i:autodiscover/autodiscover\.json)(?:/[^/]+){0,2}\Z", views.outlook_json),
    path("apple.mobileconfig", views.apple),
    path(".well-known/mta-sts.txt", views.mta_sts),
]
