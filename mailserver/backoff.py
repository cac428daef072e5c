"""How long the queue waits for a database that is gone."""

from mailserver import log

BACKOFF_S = (0.5, 10.0)


class BackOff:
    """Of one worker's queue: whoever meets the database gone makes the wait longer for all."""

    def __init__(self) -> None:
        self._wait_s = 0.0

    @property
    def is_on(self) -> bool:
        return self._wait_s > 0.0

    def longer(self, error: Exception | None) -> float:
        """How long to wait, twice as long each time; the first failure is logged."""
        if not self._wait_s and error is not None:
            log.warning("the queue waits for the database", error=error)
        self._wait_s = min(max(self._wait_s * 2, BACKOFF_S[0]), BACKOFF_S[1])
        return self._wait_s

    def over(self) -> None:
        """It is back."""
        if self._wait_s:
            log.warning("the queue goes on")
        self._wait_s = 0.0
