"""On PostgreSQL bodies are stored as they are: compressing mail costs time and gains little."""

from django.db import migrations


def external(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE sending_content ALTER COLUMN body SET STORAGE EXTERNAL")


def extended(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute("ALTER TABLE sending_content ALTER COLUMN body SET STORAGE EXTENDED")


class Migration(migrations.Migration):
    dependencies = [("sending", "0001_initial")]
    operations = [migrations.RunPython(external, extended)]
