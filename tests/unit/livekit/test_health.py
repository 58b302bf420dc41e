"""How often LiveKit is asked whether it is well, and what is said of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from server.errors import unavailable
from server.observability.livekit_health import KEPT_SEC, LiveKitHealth
from server.ports.livekit import LiveKitAddress, LiveKitStatus

_ADDRESS = LiveKitAddress("http://livekit.test", "ws://livekit.test", "key", "secret")


@dataclass
class _LiveKit:
    there: bool = True
    problem: str | None = None
    asked: int = 0
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    now: float = 100.0

    async def address(self) -> LiveKitAddress:
        if not self.there:
            raise unavailable("it is starting")
        return _ADDRESS

    async def status(self) -> LiveKitStatus:
        self.asked += 1
        await self.answers.wait()
        return LiveKitStatus(False, _ADDRESS.url, None, None, self.problem)


async def test_many_that_ask_at_once_cost_one_call_every_few_seconds() -> None:
    livekit = _LiveKit()
    health = LiveKitHealth(livekit, monotonic=lambda: livekit.now)
    asking = [asyncio.create_task(health.problem()) for _ in range(20)]
    livekit.answers.set()
    answers = await asyncio.gather(*asking)
    livekit.problem = "it says that it is not ready"
    kept = await health.problem()
    livekit.now += KEPT_SEC

    assert (set(answers), kept) == ({None}, None)
    assert await health.problem() == "it says that it is not ready"
    assert livekit.asked == 2


async def test_one_that_is_not_there_is_known_at_once() -> None:
    livekit = _LiveKit()
    health = LiveKitHealth(livekit, monotonic=lambda: livekit.now)
    livekit.answers.set()
    before = await health.problem()
    livekit.there = False

    assert before is None
    assert await health.problem() == "it is starting"
    assert livekit.asked == 1


async def test_one_that_hangs_is_a_problem_within_seconds() -> None:
    """Section 6: nothing hangs; the health body says what is wrong."""
    health = LiveKitHealth(_LiveKit())

    assert await health.problem() == "LiveKit did not answer within 3 s"
