"""authd on its socket, in the test's process: its fixtures and a hasher that can be held.

A test file imports the fixtures that it uses, and with them `demo_mailbox` and `task_connection`.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from django.db import connection, connections

from mailserver import authd
from mailserver.authd import AuthClient
from mailserver.authenticator import Authenticator
from mailserver.config import Config
from mailserver.directory import Directory
from panel import environment
from panel.mailboxes.models import Mailbox
from panel.tenants.models import Plan
from tests.support import world
from tests.support.waiting import until

IP = "192.0.2.7"
THREADS = 2


@pytest.fixture(name="demo", autouse=True)
def demo_mailbox(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    """The mailbox shop@demo.test."""
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    Plan.objects.get_or_create(name="Standard")
    world.domain("demo.test", world.tenant("Demo"))
    yield world.mailbox("shop@demo.test")
    connection.close()


@pytest.fixture(autouse=True)
async def task_connection() -> AsyncIterator[None]:
    """A test that is a task has a connection of its own, made here and closed at its end."""
    own = connections["default"]
    yield
    own.close()


@pytest.fixture(name="config")
def own_config(tmp_path: Path) -> Config:
    return replace(Config.of(environment.read({})), data=tmp_path)


@dataclass
class House:
    """authd on its socket, in this process."""

    config: Config
    directory: Directory
    clients: list[AuthClient]

    def client(self, **options: float) -> AuthClient:
        made = AuthClient(authd.socket_path(self.config), **options)
        self.clients.append(made)
        return made

    async def ask(
        self, login: str = "shop@demo.test", password: str = world.PASSWORD, ip: str = IP, **more: str
    ):
        return await self.client().ask(login, password, ip, **more)


@contextlib.asynccontextmanager
async def running(config: Config, *, warns: bool = False) -> AsyncIterator[House]:
    """authd listening; `warns`: of filling mailboxes."""
    executor = ThreadPoolExecutor(THREADS)
    house = House(config, Directory("+", "", config.hostname, executor), [])
    ready = asyncio.Event()
    serving = asyncio.create_task(authd.serve(
        config, house.directory, ready.set, warns=warns
    ))
    try:
        await asyncio.wait({asyncio.create_task(ready.wait()), serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        await until(house.directory._is_fresh)
        yield house
    finally:
        for client in house.clients:
            client.close()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        barrier = threading.Barrier(THREADS)
        await asyncio.gather(
            *(
                asyncio.get_running_loop().run_in_executor(
                    executor, lambda: (barrier.wait(5), connections.close_all())
                )
                for _ in range(THREADS)
            )
        )
        executor.shutdown()


@pytest.fixture(name="house")
async def running_house(config: Config) -> AsyncIterator[House]:
    async with running(config) as made:
        yield made


class Hasher:
    """Stands in for argon2: tells what is hashed, and holds wrong ones until it is opened."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.opened = threading.Event()

    def verify(self, password: str, stored: str) -> bool:
        self.asked.append(password)
        if password == world.PASSWORD:
            return True
        assert self.opened.wait(10)
        return False


@pytest.fixture(name="hasher")
def held_hasher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hasher]:
    made = Hasher()
    monkeypatch.setattr(Authenticator.__init__, "__defaults__", (made.verify,))
    yield made
    made.opened.set()
