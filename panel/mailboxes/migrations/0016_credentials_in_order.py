from django.db import migrations, models


class Migration(migrations.Migration):
    """The orders of the provider's list of passwords."""

    dependencies = [("mailboxes", "0015_recovery_address")]

    operations = [
        migrations.AddIndex(
            model_name="credential", index=models.Index(fields=["label", "-id"], name="credential_by_label")
        ),
        migrations.AddIndex(
            model_name="credential", index=models.Index(fields=["last_used_at", "-id"], name="credential_by_use")
        ),
    ]
