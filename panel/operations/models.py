"""Node: the machines that run a mailserver on this database. Look: what its letters go on from. Traffic: counts."""

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


class Look(models.Model):
    """From when on one kind of what people are told by letter is looked at next (notices)."""

    name = models.CharField(max_length=40, primary_key=True)
    since = models.DateTimeField()

    class Meta:
        ordering = ["pk"]

    def __str__(self):
        return self.name


class Traffic(models.Model):
    """The mail of five minutes that are over, for the first page: such a count never changes.

    Written by whoever looks and finds it missing; what was never looked at within a day has no row.
    """

    slot = models.BigIntegerField(primary_key=True)  # its number since the ids' first millisecond
    inbound = models.PositiveIntegerField()
    outbound = models.PositiveIntegerField()
    recipients = models.PositiveIntegerField()  # but for discarded ones
    prompt = models.PositiveIntegerField()  # of these, delivered within a minute
    last_message = models.BigIntegerField(null=True)  # the newest id
