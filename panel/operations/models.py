"""Node: the machines that run a mailserver on this database."""

from django.db import models
from django.db.models import Q


class Node(models.Model):
    """A mailserver; its number is part of every id that it makes, so it is never given twice."""

    number = models.PositiveSmallIntegerField(unique=True)
    name = models.CharField(max_length=253, unique=True)
    version = models.CharField(max_length=40)
    started_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    draining = models.BooleanField(default=False)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.CheckConstraint(name="node_number_fits_the_ids", condition=Q(number__lte=63)),
        ]

    def __str__(self):
        return self.name
