"""Waiting for a condition, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 20.0) -> float:
    """Wait until it holds; the seconds that it took. Fails after `within_s`."""
    began_s = time.monotonic()
    while True:
        held = condition()
        if not isinstance(held, bool):
            held = await held
        taken_s = time.monotonic() - began_s
        if held:
            return taken_s
        assert taken_s < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.01)
