"""Each mailbox and alias has its tenant and its address's parts, and the lists have an index each in their order.

App passwords have one by mailbox, for their number in a tenant.
"""

import importlib

from django.db import migrations, models

FIELDS = importlib.import_module("panel.mailboxes.migrations.0012_at_address").FIELDS


def in_order(model, *narrowed_by):
    name = "_".join([model, *(narrowed_by or ("address",)), "order"])
    return migrations.AddIndex(
        model, models.Index(fields=[*narrowed_by, "domain_name", "local_part", "id"], name=name)
    )


def by_local_part(model):
    return migrations.AddIndex(
        model, models.Index(fields=["local_part", "domain_name", "id"], name=f"{model}_local_part")
    )


class Migration(migrations.Migration):
    dependencies = [("mailboxes", "0013_at_address_filled")]
    operations = [
        *(
            migrations.AlterField(model, name, field())
            for model in ("mailbox", "alias") for name, field in FIELDS.items()
        ),
        in_order("mailbox"), in_order("mailbox", "tenant"), in_order("mailbox", "status"),
        in_order("mailbox", "name"), by_local_part("mailbox"),
        migrations.AddIndex("mailbox", models.Index(fields=["tenant", "id"], name="mailbox_tenant_newest")),
        migrations.AddIndex(
            "credential",
            models.Index(fields=["mailbox"], condition=models.Q(kind="app"), name="credential_app_of"),
        ),
        in_order("alias"), in_order("alias", "tenant"), by_local_part("alias"),
    ]
