"""What a service leaves behind: entries of the audit log, and notices for the mailserver's caches."""

from panel.tenants.models import AuditEntry, DirectoryChange


class Traces:
    """What came since this was made."""

    def __init__(self) -> None:
        self._entry = max(AuditEntry.objects.values_list("pk", flat=True), default=0)
        self._change = max(DirectoryChange.objects.values_list("pk", flat=True), default=0)

    @property
    def actions(self) -> list[str]:
        entries = AuditEntry.objects.filter(pk__gt=self._entry).order_by("pk")
        return list(entries.values_list("action", flat=True))

    @property
    def entry(self) -> AuditEntry:
        """The one entry."""
        return AuditEntry.objects.get(pk__gt=self._entry)

    @property
    def notices(self) -> list[str]:
        """The domains of which the caches were told, each as often as that was."""
        changes = DirectoryChange.objects.filter(pk__gt=self._change).order_by("pk")
        return list(changes.values_list("domain", flat=True))

    @property
    def domains(self) -> set[str]:
        return set(self.notices)

    @property
    def nothing(self) -> bool:
        return not self.actions and not self.domains
