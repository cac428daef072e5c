"""The audit log is searched by how its names begin; panel accounts are found without the persons among them."""

from django.db import migrations, models
from django.db.models import F, Q

from panel.database.indexed import Folded


class Migration(migrations.Migration):
    dependencies = [("tenants", "0011_account_name")]
    operations = [
        migrations.AddIndex(
            "auditentry", models.Index(Folded("subject_name"), F("id").desc(), name="audit_subject")
        ),
        migrations.AddIndex("auditentry", models.Index(Folded("actor_name"), F("id").desc(), name="audit_actor")),
        migrations.AddIndex("auditentry", models.Index(Folded("action"), F("id").desc(), name="audit_action")),
        migrations.AddIndex(
            "user", models.Index(fields=["email"], condition=Q(kind="panel"), name="account_email")
        ),
    ]
