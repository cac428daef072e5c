from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class TenantsConfig(AppConfig):
    name = "panel.tenants"
    label = "tenants"
    verbose_name = gettext_lazy("Customers")
