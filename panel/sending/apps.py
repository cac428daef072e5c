from django.apps import AppConfig
from django.utils.translation import gettext_lazy


class SendingConfig(AppConfig):
    name = "panel.sending"
    label = "sending"
    verbose_name = gettext_lazy("Mail")
