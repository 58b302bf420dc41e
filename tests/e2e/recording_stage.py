"""A real server on a real LiveKit with people in a room, and what can be read out of a recording of them."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from tests.conftest import Eventually
from tests.marks import beeps, is_flash, read_number
from tests.people import People, Person
from tests.servers.bax import BaxServer
from tests.sinks import Sink


class Stage:
    """Calls by the seeds' own paths; `hook` hears of everything."""

    def __init__(
        self, server: BaxServer, people: People, hook: Sink, room: str, eventually: Eventually
    ) -> None:
        self.server = server
        self.people = people
        self.room = room
        self._hook = hook
        self._eventually = eventually

    async def call(self, verb: str, path: str, body: object = None, *, status: int | None = None) -> Any:
        """The JSON of the answer; its status must be a good one, or `status`."""
        answer = await asyncio.to_thread(self.server.call, verb, path, body)
        assert answer.status == status if status else answer.status < 300, answer.body
        return answer.json if answer.body else None

    async def join(self, *people: Person) -> None:
        for person in people:
            await self.people.join(person, self.room)

    async def delete_room(self) -> None:
        """In LiveKit itself: the server may be away."""
        from livekit import api

        address = self.people.address
        async with api.LiveKitAPI(address.url, address.api_key, address.api_secret) as livekit:
            await livekit.room.delete_room(api.DeleteRoomRequest(room=self.room))

    async def start(self, **wanted: Any) -> dict[str, Any]:
        """`POST /v1/egress/start`, waited for until it records."""
        egress: dict[str, Any] = await self.call(
            "POST", "/v1/egress/start", {"roomName": self.room, **wanted}
        )
        return await self.active(egress["id"])

    async def egress(self, egress_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.call("GET", f"/v1/egress/{egress_id}")
        return found

    async def active(self, egress_id: str) -> dict[str, Any]:
        async def seen() -> dict[str, Any] | None:
            egress = await self.egress(egress_id)
            assert egress["status"] == "STARTED", egress
            return egress if egress["livekitStatus"] == "EGRESS_ACTIVE" else None

        found: dict[str, Any] = await self._eventually(seen, within=30)
        return found

    async def recorded(self, egress_id: str, seconds: float, *, within: float = 40.0) -> dict[str, Any]:
        """Once so much is recorded."""

        async def enough() -> dict[str, Any] | None:
            egress = await self.egress(egress_id)
            assert egress["status"] == "STARTED", egress
            done = egress.get("progress", {}).get("durationMs", 0) >= seconds * 1000
            return egress if done else None

        found: dict[str, Any] = await self._eventually(enough, within=within, every=0.1)
        return found

    async def settled(self, egress_id: str) -> float:
        """Seconds recorded, once they no longer grow."""
        last = -1

        async def same() -> bool:
            nonlocal last
            now = (await self.egress(egress_id)).get("progress", {}).get("durationMs", 0)
            last, before = now, last
            return bool(now == before)

        await self._eventually(same, within=20, every=1.2)
        return last / 1000

    async def ended(self, egress_id: str, *, within: float = 40.0) -> dict[str, Any]:
        async def over() -> dict[str, Any] | None:
            egress = await self.egress(egress_id)
            return egress if egress["status"] != "STARTED" else None

        found: dict[str, Any] = await self._eventually(over, within=within)
        return found

    async def stop(self, egress_id: str) -> dict[str, Any]:
        stopped: dict[str, Any] = await self.call("POST", f"/v1/egress/{egress_id}/stop", {})
        return stopped

    @property
    def bodies(self) -> list[str]:
        """Raw webhooks."""
        return [one.body.decode() for one in self._hook.received]

    def events(self, prefix: str = "") -> list[dict[str, Any]]:
        """Webhooks that came so far, in the order they came."""
        bodies = [json.loads(one.body) for one in self._hook.received]
        return [one for one in bodies if one["event"].startswith(prefix)]

    async def heard(self, event: str) -> dict[str, Any]:
        """The data of the first event of that name."""
        found = await self._eventually(lambda: self.events(event), within=20)
        assert not any(key in found[0]["data"] for key in ("orders", "secrets"))
        data: dict[str, Any] = found[0]["data"]
        return data

    async def file(self, url: str) -> Media:
        return await asyncio.to_thread(media, url)


@dataclass(frozen=True, slots=True)
class Media:
    """A file, decoded: `luma` of every picture, `sound` mono in -1…1, times of pictures in seconds."""

    luma: list[np.ndarray[Any, Any]]
    times: list[float]
    sound: np.ndarray[Any, Any]
    hz: int
    codecs: tuple[str, ...]
    size: int

    @property
    def seconds(self) -> float:
        return len(self.times) / 30

    def numbers(self, area: tuple[slice, slice]) -> list[int | None]:
        """What the participant in that part of the picture counted."""
        return [read_number(picture[area]) for picture in self.luma]

    def flashes(self, area: tuple[slice, slice]) -> list[float]:
        """When it turned white there, in seconds."""
        white = [is_flash(picture[area]) for picture in self.luma]
        return [self.times[index] for index in range(1, len(white)) if white[index] and not white[index - 1]]

    def beeps(self) -> list[float]:
        return beeps(self.sound, self.hz)

    def is_steady(self) -> bool:
        """A constant frame rate, without a hole."""
        steps = np.diff(self.times)
        return bool(len(steps)) and bool(np.allclose(steps, 1 / 30, atol=0.0012))


def media(url: str) -> Media:
    with urllib.request.urlopen(url, timeout=20) as answer:
        data = answer.read()
    return decoded(data)


def decoded(data: bytes) -> Media:
    """Raise if anything of it cannot be decoded."""
    luma, times, sound, hz = [], [], [], 48_000
    with av.open(io.BytesIO(data), "r") as file:
        codecs = tuple(stream.codec_context.name for stream in file.streams)
        for frame in file.decode(*[stream for stream in file.streams if stream.type in ("video", "audio")]):
            if isinstance(frame, av.VideoFrame):
                plane = frame.planes[0]
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
                luma.append(rows[:, : plane.width].copy())
                times.append(float(frame.time or 0))
            elif isinstance(frame, av.AudioFrame):
                hz = frame.sample_rate
                sound.append(frame.to_ndarray().astype(np.float32).mean(axis=0))
    return Media(luma, times, np.concatenate(sound or [np.zeros(0)]), hz, codecs, len(data))
