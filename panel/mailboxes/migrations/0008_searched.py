"""What mailboxes, passwords and logins are looked up by, and what the first page asks for."""

from django.db import migrations, models
from django.db.models import F, Q

from panel.database.indexed import Folded


class Migration(migrations.Migration):
    dependencies = [("mailboxes", "0007_logins_by_outcome")]
    operations = [
        migrations.AddIndex("address", models.Index(Folded("local_part"), name="address_local_part")),
        migrations.AddIndex("mailbox", models.Index(Folded("name"), name="mailbox_name")),
        migrations.AddIndex("alias", models.Index(Folded("description"), name="alias_description")),
        migrations.AddIndex("credential", models.Index(Folded("label"), name="credential_label")),
        migrations.AddIndex(
            "credential",
            models.Index(fields=["frozen_at"], condition=Q(frozen_at__isnull=False), name="credential_frozen"),
        ),
        migrations.AddIndex("loginevent", models.Index(fields=["ip", "-id"], name="login_ip")),
        migrations.AddIndex("loginevent", models.Index(Folded("login"), F("id").desc(), name="login_name")),
        migrations.AddIndex(
            "loginevent", models.Index(fields=["last_at"], condition=Q(outcome="locked"), name="login_locked")
        ),
    ]
