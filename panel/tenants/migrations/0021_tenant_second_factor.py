"""A tenant may ask a second factor of its members."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0020_passkey")]
    operations = [
        migrations.AddField(
            "tenant", "second_factor_required",
            models.BooleanField(
                default=False, verbose_name="second factor required",
                help_text="Until they have one, its members see nothing of it in the console.",
            ),
        ),
    ]
