"""The columns of the migration before, from the addresses: one statement a table."""

from django.db import migrations
from django.db.models import OuterRef, Subquery


def fill(apps, schema_editor):
    address = apps.get_model("mailboxes", "Address").objects.filter(pk=OuterRef("address"))
    for name in ("Mailbox", "Alias"):
        apps.get_model("mailboxes", name).objects.order_by().update(
            tenant=Subquery(address.values("tenant")), domain_name=Subquery(address.values("domain__name")),
            local_part=Subquery(address.values("local_part")),
        )


class Migration(migrations.Migration):
    dependencies = [("mailboxes", "0012_at_address")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
