"""Playlists of a ladder that is being encoded: they name what is there, and only ever grow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from server.conversion.publisher import LadderPublisher
from server.domain.hls import Segment
from server.domain.ladder import ConversionSettings, plan_encode
from server.domain.media import AudioStream, MediaInfo
from server.ports.encoder import EncodedSegment
from server.ports.storage import StoredObject

PLAN = plan_encode(
    MediaInfo(
        "mp3",
        20.0,
        0.0,
        None,
        1000,
        audio=(AudioStream(0, "mp3", 2, 48_000, duration_sec=20.0),),
        stream_count=1,
    ),
    ConversionSettings(output_formats=("360p",)),
)


class Shelf:
    """An object store that keeps every version of every text, and says when one was put."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.files: set[str] = set()
        self.put = asyncio.Condition()

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        self.files.add(key)

    async def put_bytes(self, key: str, data: bytes, *, content_type: str) -> None:
        async with self.put:
            self.texts.append((key, data.decode()))
            self.put.notify_all()

    async def get_bytes(self, key: str) -> bytes:
        return dict(self.texts)[key].encode()

    async def get_file(self, key: str, path: Path) -> None:
        raise AssertionError("nothing is read while publishing")

    async def list(self, folder: str = "") -> tuple[StoredObject, ...]:
        return ()

    async def end_uploads(self, folder: str = "") -> None:
        raise AssertionError("nothing is ended while publishing")

    async def delete(self, keys: Iterable[str]) -> None:
        raise AssertionError("nothing is deleted while publishing")

    def url(self, key: str) -> str:
        return key

    async def presign(self, key: str, expires_sec: int) -> str:
        return key

    def playlist_lengths(self) -> Sequence[int]:
        return [text.count("#EXTINF") for key, text in self.texts if key == "360p/playlist.m3u8"]


def segment(index: int) -> EncodedSegment:
    name = f"segment_{index:03d}.ts"
    return EncodedSegment("360p", index, Path(name), Segment(name, 2.0, 1000), ("mp4a.40.2",))


async def test_a_second_attempt_never_shortens_what_viewers_see() -> None:
    """RFC 8216 4.3.3.5: three segments were listed before the worker died, so the next list has four."""
    shelf = Shelf()

    async def playable() -> None:
        raise AssertionError("it has been playable since the first attempt")

    async with LadderPublisher(shelf, PLAN, on_playable=playable, listed={"360p": 3}) as publisher:
        for index in range(4):
            await publisher.add(segment(index))
        async with shelf.put, asyncio.timeout(10):
            await shelf.put.wait_for(lambda: bool(shelf.playlist_lengths()))
    assert shelf.playlist_lengths() == [4]
    assert "master.m3u8" not in dict(shelf.texts)


async def test_a_playlist_names_only_what_is_there() -> None:
    """Issue section 5, playable early: each list grows, and the master comes with the first one."""
    shelf = Shelf()
    announced = asyncio.Event()

    async def playable() -> None:
        announced.set()

    async with LadderPublisher(shelf, PLAN, on_playable=playable) as publisher:
        await publisher.add(segment(0))
        async with asyncio.timeout(10):
            await announced.wait()
        assert [key for key, _ in shelf.texts] == ["360p/playlist.m3u8", "master.m3u8"]
        await publisher.add(segment(2))
        await publisher.add(segment(1))
        async with shelf.put, asyncio.timeout(10):
            await shelf.put.wait_for(lambda: shelf.playlist_lengths()[-1] == 3)
    assert shelf.playlist_lengths() == sorted(shelf.playlist_lengths())
    assert {
        f"360p/{line}"
        for line in dict(shelf.texts)["360p/playlist.m3u8"].splitlines()
        if line.endswith(".ts")
    } <= (shelf.files)
