from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("mailboxes", "0014_in_order_of_addresses"),
    ]

    operations = [
        migrations.AddField(
            model_name="mailbox",
            name="recovery",
            field=models.CharField(blank=True, editable=False, max_length=320, verbose_name="recovery address"),
        ),
        migrations.AddField(
            model_name="mailbox",
            name="recovery_is_own",
            field=models.BooleanField(default=False, editable=False),
        ),
    ]
