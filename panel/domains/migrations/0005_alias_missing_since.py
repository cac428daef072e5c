"""Since when a proved alias's record and MX have been missing, as it is kept of a domain with its check."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("domains", "0004_domain_check")]
    operations = [
        migrations.AddField(
            model_name="domainalias",
            name="missing_since",
            field=models.DateTimeField(null=True, blank=True, editable=False),
        ),
    ]
