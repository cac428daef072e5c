"""A key of each tenant's own, for its proofs in the DNS; those of domains already proved have to be set anew."""

from django.db import migrations, models

import panel.tenants.models


def make_keys(apps, schema_editor):
    tenants = apps.get_model("tenants", "Tenant").objects.using(schema_editor.connection.alias)
    for tenant in tenants.only("pk").iterator():
        tenants.filter(pk=tenant.pk).update(proof_key=panel.tenants.models.proof_key())


class Migration(migrations.Migration):
    dependencies = [("tenants", "0013_audit_of_subject")]

    operations = [
        migrations.AddField(
            model_name="tenant",
            name="proof_key",
            field=models.CharField(default=panel.tenants.models.proof_key, editable=False, max_length=32),
        ),
        migrations.RunPython(make_keys, migrations.RunPython.noop),
    ]
