"""The latest entries about a subject stand at the end of an index, however long the audit log is."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0012_audit_searched")]
    operations = [
        migrations.AddIndex(
            "auditentry", models.Index(fields=["subject_type", "subject_id", "-id"], name="audit_of_subject")
        ),
        migrations.RemoveIndex("auditentry", "tenants_aud_subject_019edd_idx"),
    ]
