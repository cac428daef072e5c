"""Accounts are found by what their name begins with; persons are many, and found by their mailboxes."""

from django.db import migrations, models
from django.db.models import Q

from panel.database.indexed import Folded


class Migration(migrations.Migration):
    dependencies = [("tenants", "0010_password_reset")]
    operations = [
        migrations.AddIndex(
            "user", models.Index(Folded("name"), condition=Q(kind="panel"), name="account_name")
        ),
    ]
