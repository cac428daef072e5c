"""On PostgreSQL each change carries its transaction id: ids become visible out of order there."""

from django.db import migrations


def add(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE tenants_directorychange ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id()"
        )


def remove(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE tenants_directorychange DROP COLUMN xid")


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]
    operations = [migrations.RunPython(add, remove)]
