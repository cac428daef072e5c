"""A tenant's name is unique among its neighbours: those of the same reseller, or of none.

It can be undone while no two tenants have the same name.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("tenants", "0016_customers"),
    ]

    operations = [
        migrations.AlterField(
            model_name='tenant',
            name='name',
            field=models.CharField(db_index=True, max_length=100),
        ),
        migrations.AddConstraint(
            model_name='tenant',
            constraint=models.UniqueConstraint(fields=('parent', 'name'), name='tenant_name_once'),
        ),
        migrations.AddConstraint(
            model_name='tenant',
            constraint=models.UniqueConstraint(condition=models.Q(('parent', None)), fields=('name',), name='tenant_name_once_on_top'),
        ),
    ]
