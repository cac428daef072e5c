"""What waits is listed by its age and counted by next hop without reading a table that grows with traffic."""

from django.db import migrations, models

WAITS = models.Q(state="waiting")


class Migration(migrations.Migration):
    dependencies = [("sending", "0005_rare_states")]
    operations = [
        migrations.AddIndex(
            model_name="recipient",
            index=models.Index(fields=["-id", "holds", "state"], condition=WAITS, name="recipient_waiting"),
        ),
        migrations.AddIndex(
            model_name="recipient",
            index=models.Index(
                fields=["next_hop", "id", "holds", "due_at", "tries", "state"], condition=WAITS, name="recipient_hop"
            ),
        ),
    ]
