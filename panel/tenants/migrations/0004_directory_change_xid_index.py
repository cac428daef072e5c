"""The follower asks four times a second for changes from a transaction id on: an index, not a scan."""

from django.db import migrations


def add(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("CREATE INDEX tenants_directorychange_xid ON tenants_directorychange (xid)")


def remove(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("DROP INDEX tenants_directorychange_xid")


class Migration(migrations.Migration):
    dependencies = [("tenants", "0003_standard_plan")]
    operations = [migrations.RunPython(add, remove)]
