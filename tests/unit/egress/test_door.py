"""What a recorder's start asks of LiveKit must not cost the recording."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from server.clock import SystemClock
from server.domain.room import Participant, Room
from server.egress.door import RoomDoor
from server.errors import unavailable
from server.ports.livekit import LiveKitAddress, LiveKitStatus


class Rooms:
    """`RoomListing` and `LiveKitSource` of which only the list of people is asked."""

    def __init__(self, answer: Callable[[], Awaitable[tuple[Participant, ...]]]) -> None:
        self._answer = answer

    async def participants(self, name: str) -> tuple[Participant, ...]:
        return await self._answer()

    async def rooms(self, names: Sequence[str] = ()) -> tuple[Room, ...]:
        raise AssertionError

    async def address(self) -> LiveKitAddress:
        raise AssertionError

    async def status(self) -> LiveKitStatus:
        raise AssertionError


async def nobody() -> tuple[Participant, ...]:
    return ()


async def away() -> tuple[Participant, ...]:
    raise unavailable("LiveKit does not answer", retry_after_sec=1)


async def garbage() -> tuple[Participant, ...]:
    raise ValueError("not a participant")


async def hangs() -> tuple[Participant, ...]:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize(("answer", "few"), [(nobody, True), (away, False), (garbage, False), (hangs, False)])
async def test_who_does_not_say_how_many_are_there_is_not_waited_for(
    answer: Callable[[], Awaitable[tuple[Participant, ...]]], *, few: bool
) -> None:
    rooms = Rooms(answer)
    assert await RoomDoor(rooms, rooms, SystemClock()).has_few_tracks("room") is few
