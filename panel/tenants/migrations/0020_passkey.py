"""Passkeys, beside an authenticator app or in its place."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0019_invitation")]
    operations = [
        migrations.AlterField("secondfactor", "secret", models.CharField(blank=True, max_length=300)),
        migrations.CreateModel(
            name="Passkey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("credential_id", models.CharField(max_length=1400, unique=True)),
                ("public_key", models.BinaryField(max_length=2000)),
                ("sign_count", models.BigIntegerField(default=0)),
                ("transports", models.JSONField(default=list)),
                ("name", models.CharField(max_length=100)),
                ("challenge", models.CharField(blank=True, max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("used_at", models.DateTimeField(null=True)),
                (
                    "factor",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="passkeys",
                        to="tenants.secondfactor",
                    ),
                ),
            ],
            options={"ordering": ["pk"]},
        ),
    ]
