from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class DomainsConfig(AppConfig):
    name = "panel.domains"
    label = "domains"
    verbose_name = gettext_lazy("Addresses")
