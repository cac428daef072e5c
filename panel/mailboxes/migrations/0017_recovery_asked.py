
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('mailboxes', '0016_credentials_in_order'),
    ]

    operations = [
        migrations.CreateModel(
            name='RecoveryAsked',
            fields=[
                ('mailbox', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='recovery_asked', serialize=False, to='mailboxes.mailbox')),
                ('address', models.CharField(max_length=320)),
                ('by', models.PositiveSmallIntegerField()),
                ('sent_at', models.DateTimeField()),
                ('token', models.CharField(max_length=40)),
            ],
        ),
    ]
