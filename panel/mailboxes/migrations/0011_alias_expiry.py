"""Aliases that end at a time of their own."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("mailboxes", "0010_mailbox_language")]
    operations = [
        migrations.AddField("alias", "expires_at", models.DateTimeField(blank=True, null=True)),
    ]
