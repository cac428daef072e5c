"""Mailboxes and aliases hold their tenant and the parts of their address themselves: columns, still empty."""

import django.db.models.deletion
from django.db import migrations, models

FIELDS = {
    "tenant": lambda **more: models.ForeignKey(
        "tenants.tenant", on_delete=django.db.models.deletion.DO_NOTHING, related_name="+", db_index=False,
        editable=False, **more,
    ),
    "domain_name": lambda **more: models.CharField(max_length=253, editable=False, **more),
    "local_part": lambda **more: models.CharField(max_length=64, blank=True, editable=False, **more),
}


class Migration(migrations.Migration):
    dependencies = [("mailboxes", "0011_alias_expiry"), ("tenants", "0001_initial")]
    operations = [
        migrations.AddField(model, name, field(null=True))
        for model in ("mailbox", "alias") for name, field in FIELDS.items()
    ]
