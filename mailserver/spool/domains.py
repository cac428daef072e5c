"""The domains' DNS records, looked at again in the background (panel/domains/checks)."""

from datetime import datetime

from mailserver import log
from mailserver.spool import sql
from panel.domains import checks


def recheck_domains(now: datetime) -> bool:
    """One bounded round of what is due; whether more may be. Raises SpoolUnavailable.

    Waits for name servers up to ten seconds: in a thread that nobody else waits for.
    """
    with sql.usable_connection():
        done = checks.recheck_due(now)
    for name, became in done.changes:
        log.domain_became(name, became)
    for name, because in done.failed:
        log.warning("what a domain's DNS says can't be kept, it is tried again", domain=name, because=because)
    return done.is_full
