"""The mail of each five minutes, counted once: the first page needn't count a day's messages at every look."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("operations", "0001_initial")]
    operations = [
        migrations.CreateModel(
            name="Traffic",
            fields=[
                ("slot", models.BigIntegerField(primary_key=True, serialize=False)),
                ("inbound", models.PositiveIntegerField()),
                ("outbound", models.PositiveIntegerField()),
                ("recipients", models.PositiveIntegerField()),
                ("prompt", models.PositiveIntegerField()),
                ("last_message", models.BigIntegerField(null=True)),
            ],
        ),
    ]
