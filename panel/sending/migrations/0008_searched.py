"""What people look messages up by: who sent, who received, from where. Found without reading the whole log."""

from django.db import migrations, models

from panel.database.indexed import Folded


class Migration(migrations.Migration):
    dependencies = [("sending", "0007_bulk_acts")]
    operations = [
        migrations.AddIndex(
            "message",
            models.Index(
                fields=["credential", "-id"], condition=models.Q(credential__isnull=False), name="message_credential"
            ),
        ),
        migrations.AddIndex(
            "message", models.Index(Folded("reverse_path"), models.F("id").desc(), name="message_reverse_path")
        ),
        migrations.AddIndex("message", models.Index(fields=["client_ip", "-id"], name="message_client_ip")),
        migrations.AddIndex(
            "recipient", models.Index(Folded("original"), models.F("id").desc(), name="recipient_original")
        ),
        migrations.AddIndex(
            "recipient",
            models.Index(
                fields=["resolved", "-id"], opclasses=["varchar_pattern_ops", "int8_ops"], name="recipient_resolved"
            ),
        ),
    ]
