from django.apps import AppConfig


class SendingConfig(AppConfig):
    name = "panel.sending"
    label = "sending"
    verbose_name = "Mail"
