"""The login history tells of a main password that opens no mail program, for there is a second factor."""

from django.db import migrations, models

OUTCOMES = [
    ("ok", "logged in"), ("wrong", "wrong password"), ("refused", "frozen, expired or from elsewhere"),
    ("scope", "not for this protocol"), ("factor", "main password, while a second factor is on"),
    ("suspended", "suspended"), ("locked", "locked after wrong ones"),
]


class Migration(migrations.Migration):
    dependencies = [("mailboxes", "0017_recovery_asked")]
    operations = [
        migrations.AlterField("loginevent", "outcome", models.CharField(choices=OUTCOMES, max_length=10)),
    ]
