"""kill -9 at random moments while clients send: see kill_loop, which also runs longer by hand."""

import random

from tests.faults import kill_loop

KILLS = 8


def test_random_kills_lose_nothing_and_repeat_nothing_here(template, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    result = kill_loop.run(template, tmp_path / "data", kills=KILLS, chance=random.Random(seed))
    print(f"\nseed {seed}: {result}")
    assert result.is_right, f"seed {seed}: {result}"
    assert result.answered >= KILLS * kill_loop.BETWEEN, "the clients got through"
