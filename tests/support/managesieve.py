"""A client of ManageSieve."""

import base64
import re
import socket

from tests.support.dovecot import Dovecot


class Sieve:
    """A ManageSieve dialogue (RFC 5804)."""

    def __init__(self, reading: Dovecot) -> None:
        self.context = reading.context
        self.socket = socket.create_connection(("localhost", reading.installation.sieve), timeout=30)
        self.file = self.socket.makefile("rb")

    def secure(self) -> None:
        assert self.ask("STARTTLS")[-1].startswith("OK")
        self.socket = self.context.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")

    def answer(self) -> list[str]:
        """The lines up to OK, NO or BYE."""
        lines: list[str] = []
        while not lines or not lines[-1].startswith(("OK", "NO", "BYE")):
            lines.append(self.file.readline().decode().strip())
            assert lines[-1], lines
        return lines

    def ask(self, command: str) -> list[str]:
        self.socket.sendall(command.encode() + b"\r\n")
        return self.answer()

    def login(self, login: str, password: str) -> str:
        plain = base64.b64encode(f"\0{login}\0{password}".encode()).decode()
        return self.ask(f'AUTHENTICATE "PLAIN" "{plain}"')[-1]

    def put(self, name: str, script: str) -> str:
        """What PUTSCRIPT is answered with: OK, or NO and why."""
        answer = self.ask(f'PUTSCRIPT "{name}" {{{len(script.encode())}+}}\r\n{script}')[-1]
        if literal := re.search(r"\{(\d+)\}$", answer):
            answer += self.file.read(int(literal[1])).decode()
            self.file.readline()
        return answer
