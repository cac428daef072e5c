"""The plan that a new tenant gets when none is named."""

from django.db import migrations


def seed(apps, schema_editor):
    apps.get_model("tenants", "Plan").objects.get_or_create(
        name="Standard",
        defaults={"mailbox_hour": 200, "mailbox_day": 1000, "tenant_hour": 2000, "tenant_day": 10000},
    )


class Migration(migrations.Migration):
    dependencies = [("tenants", "0002_directory_change_xid")]
    # A plan may be in use by the time this is undone: it is left alone.
    operations = [migrations.RunPython(seed, migrations.RunPython.noop)]
