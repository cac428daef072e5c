"""What authd does for the panel's sign-ins: the lockouts of mail clients hold there, and the other way round.

The panel checks the passwords of its own accounts, and writes those who come in into its audit
log. Here wrong ones are counted, and noted as LoginEvents, of which there is a bound.
"""

from collections.abc import Callable

from mailserver import log
from mailserver.lockout import Lockout
from panel.rules.sign_in import PROTOCOL, Act, Answer, Question, Standing


class PanelSignIns:
    """`note` keeps a login for its event: outcome, login name, address, protocol."""

    def __init__(self, lockout: Lockout, note: Callable[[str, str, str, str], None]) -> None:
        self._lockout = lockout
        self._note = note

    def answer(self, question: Question) -> Answer:
        """How the sign-in stands, after what was told; its login name is canonical."""
        login, ip = question.login, question.ip
        if question.act is Act.RIGHT:
            self._lockout.succeeded(login, ip)
        elif question.act is Act.WRONG:
            log.login_failed(login, ip, "panel: unknown account or wrong password")
            self._lockout.failed(login, question.guess, ip)
            self._note("wrong", login, ip, PROTOCOL)
        standing = self._lockout.standing(login, ip)
        if question.act is Act.MAY and standing.standing is Standing.LOCKED:
            self._note("locked", login, ip, PROTOCOL)
        return standing
