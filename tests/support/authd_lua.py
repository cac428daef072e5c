"""The Lua script by which Dovecot 2.4 asks authd, run by Lua itself as an auth worker would."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

from panel.operations.dovecot import version_2_4

SCRIPT = Path(version_2_4.__file__).with_name(version_2_4.AUTHD_PART)

# What Dovecot has at hand for the script. Asks what standard input says, a line of hexadecimal
# fields each, and prints the answer likewise.
WORKER = r"""
dovecot = { auth = {
  PASSDB_RESULT_OK = "ok", PASSDB_RESULT_PASSWORD_MISMATCH = "wrong", PASSDB_RESULT_INTERNAL_FAILURE = "failure",
  USERDB_RESULT_OK = "ok", USERDB_RESULT_USER_UNKNOWN = "unknown", USERDB_RESULT_INTERNAL_FAILURE = "failure",
} }
local script, socket = arg[1], arg[2]
dofile(script)
assert(script_init({ socket = socket }) == 0)
local function unhex(text) return (text:gsub("..", function(two) return string.char(tonumber(two, 16)) end)) end
local function hex(text) return (text:gsub(".", function(c) return string.format("%02x", c:byte()) end)) end
for line in io.lines() do
  local fields = {}
  for field in line:gmatch("([^,]*),") do fields[#fields + 1] = unhex(field) end
  local request = { protocol = fields[1], remote_ip = fields[2], user = fields[3] }
  function request:log_error(text) io.stderr:write(text, "\n") end
  local verdict, found
  if fields[4] then
    verdict, found = auth_password_verify(request, fields[4])
  else
    verdict, found = auth_userdb_lookup(request)
  end
  assert(verdict == "ok" or found == nil, "Dovecot takes fields with a yes alone")
  local words = { verdict }
  for name, value in pairs(found or {}) do words[#words + 1] = hex(name) .. "=" .. hex(value) end
  io.write(table.concat(words, ","), "\n")
  io.flush()
end
"""

Answer = tuple[str, dict[str, str]]


class AuthWorker:
    """One process with the script; it keeps its connection to authd from question to question."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def login(self, login: str, password: str, *, protocol: str = "imap", ip: str = "192.0.2.7") -> Answer:
        return await self._ask(protocol, ip, login, password)

    async def place(self, login: str) -> Answer:
        return await self._ask("lmtp", "", login)

    async def _ask(self, *fields: str) -> Answer:
        assert self._process.stdin and self._process.stdout
        line = "".join(field.encode("utf-8", "surrogateescape").hex() + "," for field in fields)
        self._process.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(15):
            answer = (await self._process.stdout.readline()).decode().strip()
        verdict, *words = answer.split(",")
        pairs = (re.fullmatch("([0-9a-f]*)=([0-9a-f]*)", word) for word in words)
        return verdict, {bytes.fromhex(each[1]).decode(): bytes.fromhex(each[2]).decode() for each in pairs if each}

    async def close(self) -> str:
        """End it; what it logged."""
        assert self._process.stdin and self._process.stderr
        self._process.stdin.close()
        logged = (await self._process.stderr.read()).decode()
        await self._process.wait()
        return logged


@contextlib.asynccontextmanager
async def auth_worker(socket: Path) -> AsyncIterator[AuthWorker]:
    process = await asyncio.create_subprocess_exec(
        "lua5.4", "-e", f"arg = {{ [1] = [==[{SCRIPT}]==], [2] = [==[{socket}]==] }}\n{WORKER}",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield AuthWorker(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
