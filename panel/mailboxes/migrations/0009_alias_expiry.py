"""Aliases that end at a time of their own."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("mailboxes", "0008_searched")]
    operations = [
        migrations.AddField("alias", "expires_at", models.DateTimeField(blank=True, null=True)),
    ]
