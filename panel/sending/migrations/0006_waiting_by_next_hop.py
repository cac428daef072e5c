"""The queue by next hop is counted from an index alone, of what waits, in a table that grows with traffic."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sending", "0004_automatic_answers")]
    operations = [
        migrations.AddIndex(
            model_name="recipient",
            index=models.Index(
                fields=["next_hop", "id", "holds", "due_at", "tries"], condition=models.Q(state="waiting"),
                name="recipient_hop",
            ),
        ),
    ]
