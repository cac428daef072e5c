"""A tenant may ask a second factor of the people with its mailboxes, too."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0022_untold_entries")]
    operations = [
        migrations.AddField(
            "tenant", "people_second_factor_required",
            models.BooleanField(
                default=False, verbose_name="second factor required of people with mailboxes",
                help_text="Whoever signs in to a mailbox's pages sets one up first. Mail programs go on until then; "
                "from then on they need an app password.",
            ),
        ),
    ]
