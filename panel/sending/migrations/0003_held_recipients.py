"""What is held is looked at again now and then: found without reading the whole log."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("sending", "0002_content_storage")]
    operations = [
        migrations.AddIndex(
            model_name="recipient",
            index=models.Index(
                fields=["due_at"], condition=models.Q(state="waiting", holds__gt=0), name="recipient_held"
            ),
        ),
    ]
