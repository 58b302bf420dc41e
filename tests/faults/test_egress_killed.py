"""Whoever records dies with SIGKILL: the recording goes on under its id, or is finished from what is on disk."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

import pytest
from livekit import api
from livekit.protocol import egress as egress_pb

from tests.conftest import Eventually
from tests.e2e.recording_stage import Media, Stage
from tests.marks import CYCLE
from tests.people import People, Person
from tests.processes import fork_servers, recorders
from tests.servers.bax import BaxServer, bax_server
from tests.servers.livekit import LiveKitServer
from tests.sinks import Sink

_ANN = Person("ann", name="Ann", width=320, height=180)
_FULL = (slice(None), slice(None))
# Design section 13: what the file may lack of the time before a death.
_LOST_SEC = 4.0
_KEY, _SECRET = "APIkilled", "killed-secret-0123456789abcdefghijkl"
# Two of them would be more than may be lost.
_SEGMENT_SEC = 8


@pytest.fixture
def server(tmp_path: Path, livekit: LiveKitServer) -> Iterator[BaxServer]:
    settings = {
        **livekit.settings,
        "bootstrap_livekit_api_key": _KEY,
        "bootstrap_livekit_api_secret": _SECRET,
        "lease_sec": "3",
    }
    with bax_server(tmp_path / "data", **settings) as running:
        yield running


@pytest.fixture
async def stage(server: BaxServer, livekit: LiveKitServer, eventually: Eventually) -> AsyncIterator[Stage]:
    room = f"room-{uuid.uuid4().hex[:8]}"
    async with People(livekit) as people, Sink() as hook:
        stage = Stage(server, people, hook, room, eventually)
        await stage.call("POST", "/v1/webhooks", {"url": hook.url, "events": ["*"]})
        await stage.join(_ANN)
        yield stage


def _kill(pids: list[int]) -> None:
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def _kill_worker(server: BaxServer, *, with_recorders: bool) -> None:
    """With its recorders: all at one moment, as seen from any of them."""
    if with_recorders:
        # It cannot replace them, and they cannot end by themselves because it has gone.
        server.process.send_signal(signal.SIGSTOP)
        recording = recorders(server.process.pid)
        _kill(fork_servers(server.process.pid))
        _kill(recording)
    server.process.kill()
    server.process.wait()


async def _finished(stage: Stage, egress_id: str) -> tuple[dict[str, Any], Media, list[dict[str, Any]]]:
    """The stopped egress, its file and the manifest's gaps."""
    done = await stage.stop(egress_id)
    if done["status"] == "STARTED":
        done = await stage.ended(egress_id)
    assert done["status"] == "COMPLETED", done
    manifest = await stage.call("GET", f"/v1/recordings/{done['recordingId']}/manifest")
    return done, await stage.file(done["fileUrl"]), manifest["gaps"]


def _lost_sec(file: Media) -> float:
    """The greatest hole in what the participant counted, seconds."""
    counted = [number for number in file.numbers(_FULL) if number is not None]
    return max(later - earlier for earlier, later in pairwise(counted)) / 30


def _check(file: Media, gaps: list[dict[str, Any]], reason: str) -> None:
    assert file.is_steady()
    assert [gap["reason"] for gap in gaps] == [reason]
    assert _lost_sec(file) == pytest.approx(gaps[0]["durationMs"] / 1000, abs=0.4)


async def test_a_killed_recorder_is_followed_by_another(stage: Stage, server: BaxServer) -> None:
    """Issue section 5: kill -9 of the recorder; the egress stays STARTED, the gap is in the manifest."""
    egress = await stage.start(mode="record", quality="480p")
    await stage.recorded(egress["id"], 3)
    _kill(recorders(server.process.pid))
    await stage.recorded(egress["id"], 5, within=20)
    done, file, gaps = await _finished(stage, egress["id"])
    assert done["id"] == egress["id"]
    _check(file, gaps, "RECORDER_LOST")
    assert _lost_sec(file) < _LOST_SEC
    assert len(stage.events("recording.started")) == 1


@pytest.mark.parametrize("with_recorders", [False, True], ids=["worker", "host"])
async def test_a_killed_worker_is_followed_by_another(
    stage: Stage, server: BaxServer, *, with_recorders: bool
) -> None:
    """Issue section 5: kill -9 of the worker, alone or with its recorders as when the host dies."""
    egress = await stage.start(mode="record", quality="480p")
    before = await stage.recorded(egress["id"], 3)
    _kill_worker(server, with_recorders=with_recorders)
    server.start()
    recorded = before["progress"]["durationMs"] / 1000
    await stage.recorded(egress["id"], recorded + 2, within=30)
    _, file, gaps = await _finished(stage, egress["id"])
    _check(file, gaps, "WORKER_LOST")
    # The time without a worker is a gap, but of what was there before at most four seconds are missing.
    assert gaps[0]["startMs"] > (recorded - _LOST_SEC) * 1000
    assert len(stage.events("recording.started")) == 1


async def test_a_drained_worker_hands_the_recording_over(stage: Stage, server: BaxServer) -> None:
    """Design section 5: SIGTERM, a new server; one file, nothing of what was recorded is lost."""
    egress = await stage.start(mode="record", quality="480p")
    before = await stage.recorded(egress["id"], 2)
    assert server.stop() == 0
    server.start()
    recorded = before["progress"]["durationMs"]
    await stage.recorded(egress["id"], recorded / 1000 + 2, within=30)
    _, file, gaps = await _finished(stage, egress["id"])
    assert file.is_steady()
    assert len(gaps) == 1
    assert gaps[0]["startMs"] >= recorded


async def test_a_room_that_ended_meanwhile_is_finished_from_disk(stage: Stage, server: BaxServer) -> None:
    """Issue section 5: nobody was there to see the room's end; what was recorded is delivered all the same."""
    egress = await stage.start(mode="record", quality="480p")
    before = await stage.recorded(egress["id"], 3)
    _kill_worker(server, with_recorders=True)
    await stage.delete_room()
    server.start()
    done = await stage.ended(egress["id"], within=60)
    assert done["status"] == "COMPLETED", done
    file = await stage.file(done["fileUrl"])
    assert file.is_steady()
    assert file.seconds > before["progress"]["durationMs"] / 1000 - _LOST_SEC


@dataclass(frozen=True, slots=True)
class Played:
    """What a playlist plays: its text, and of each segment what the participant counted since `origin`."""

    text: str
    origin: int
    counted: list[list[int]]
    lengths: list[float]

    @property
    def numbers(self) -> list[int]:
        return [number for segment in self.counted for number in segment]

    def missing_before(self, moment: float) -> float:
        """Seconds between what was last played of the time before `moment` (as `time.time()`) and it."""
        shown = int((moment - self.origin) * 30)
        return min((shown - number) % CYCLE for number in self.numbers) / 30


async def _segments_only(stage: Stage) -> str:
    async with api.LiveKitAPI(stage.server.url, _KEY, _SECRET) as livekit:
        info = await livekit.egress.start_room_composite_egress(
            egress_pb.RoomCompositeEgressRequest(
                room_name=stage.room,
                layout="grid",
                segment_outputs=[
                    egress_pb.SegmentedFileOutput(
                        filename_prefix="hls/{room_name}",
                        live_playlist_name="now.m3u8",
                        segment_duration=_SEGMENT_SEC,
                    )
                ],
                advanced=egress_pb.EncodingOptions(width=640, height=360, framerate=30, video_bitrate=800),
            )
        )
    await stage.active(info.egress_id)
    return info.egress_id


def _text(url: str) -> str:
    with urlopen(url, timeout=20) as answer:
        found: str = answer.read().decode()
    return found


async def _played(stage: Stage, egress_id: str) -> Played:
    """Once the egress is over."""
    done = await stage.ended(egress_id, within=40)
    assert done["status"] == "COMPLETED", done
    async with api.LiveKitAPI(stage.server.url, _KEY, _SECRET) as livekit:
        listed = await livekit.egress.list_egress(egress_pb.ListEgressRequest(egress_id=egress_id))
    (segments,) = listed.items[0].segment_results
    text = await asyncio.to_thread(_text, segments.playlist_location)
    lines = text.splitlines()
    assert lines[-1] == "#EXT-X-ENDLIST"
    assert segments.segment_count == text.count("#EXTINF")
    files = [await stage.file(urljoin(segments.playlist_location, line)) for line in lines if line[0] != "#"]
    lengths = [float(line[8:-1]) for line in lines if line.startswith("#EXTINF:")]
    assert segments.duration == pytest.approx(sum(lengths) * 1e9, abs=1e7)
    for file, length in zip(files, lengths, strict=True):
        assert file.is_steady()
        assert file.seconds == pytest.approx(length, abs=0.001)
    numbers = [[number for number in file.numbers(_FULL) if number is not None] for file in files]
    return Played(text, stage.people.origin, numbers, lengths)


async def _gap(stage: Stage, egress_id: str) -> dict[str, Any]:
    """The only one that the manifest knows of."""
    recording = (await stage.egress(egress_id))["recordingId"]
    manifest = await stage.call("GET", f"/v1/recordings/{recording}/manifest")
    (gap,) = manifest["gaps"]
    return {**gap, "totalMs": manifest["durationMs"]}


def _check_segments(played: Played, gap: dict[str, Any], reason: str) -> None:
    """The manifest says where the hole is, and how long, in words that the playlist bears out."""
    text = played.text.partition("#EXT-X-DISCONTINUITY\n")
    assert played.text.count("#EXT-X-DISCONTINUITY\n") == 1
    before = sum(played.lengths[: text[0].count("#EXTINF")])
    hole = max((later - earlier) % CYCLE for earlier, later in pairwise(played.numbers)) / 30
    assert gap["reason"] == reason
    assert gap["startMs"] == pytest.approx(before * 1000, abs=1)
    assert gap["totalMs"] == pytest.approx(sum(played.lengths) * 1000, abs=2)
    assert hole == pytest.approx(gap["durationMs"] / 1000, abs=0.4)


def _written(server: BaxServer) -> float:
    """When the recorder wrote the last time, seconds since 1970."""
    return max(part.stat().st_mtime for part in server.data_dir.glob("egress/*/part-*.mp4"))


async def test_recorders_of_a_worker_that_hung_end_with_it(
    stage: Stage, server: BaxServer, eventually: Eventually
) -> None:
    """Issue section 5: nobody has read what they said when it is killed; they finish their files all the same."""
    egress = await stage.start(mode="record", quality="480p")
    await stage.recorded(egress["id"], 2)
    recording = recorders(server.process.pid)
    assert recording
    server.process.send_signal(signal.SIGSTOP)
    hung = time.time()
    await eventually(lambda: _written(server) > hung + 2)
    server.process.kill()
    server.process.wait()
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in recording))
    server.start()
    await stage.recorded(egress["id"], 6, within=30)
    _, file, gaps = await _finished(stage, egress["id"])
    _check(file, gaps, "WORKER_LOST")


async def test_segments_alone_lose_no_more_than_a_file(stage: Stage, server: BaxServer) -> None:
    """Issue section 5: kill -9 of the recorder in the middle of a long segment; what is on disk of it is played."""
    egress_id = await _segments_only(stage)
    await stage.recorded(egress_id, 6)
    killed = time.time()
    _kill(recorders(server.process.pid))
    await stage.recorded(egress_id, 7, within=20)
    await stage.stop(egress_id)
    played, gap = await _played(stage, egress_id), await _gap(stage, egress_id)
    _check_segments(played, gap, "RECORDER_LOST")
    assert played.missing_before(killed) < _LOST_SEC
    assert gap["durationMs"] < _LOST_SEC * 1000
    assert played.lengths[0] < _SEGMENT_SEC


@pytest.mark.parametrize("with_recorders", [False, True], ids=["worker", "host"])
async def test_segments_alone_survive_their_worker(
    stage: Stage, server: BaxServer, *, with_recorders: bool
) -> None:
    """Issue section 5: the same for kill -9 of the worker, alone or with its recorders, in the second segment."""
    egress_id = await _segments_only(stage)
    await stage.recorded(egress_id, _SEGMENT_SEC + 5)
    killed = time.time()
    _kill_worker(server, with_recorders=with_recorders)
    server.start()
    await stage.recorded(egress_id, _SEGMENT_SEC + 6, within=30)
    await stage.stop(egress_id)
    played, gap = await _played(stage, egress_id), await _gap(stage, egress_id)
    _check_segments(played, gap, "WORKER_LOST")
    assert played.missing_before(killed) < _LOST_SEC
    assert played.lengths[0] == _SEGMENT_SEC


async def test_segments_of_a_room_that_ended_meanwhile(stage: Stage, server: BaxServer) -> None:
    """Issue section 5: no other recorder follows; what was open is in the final playlist all the same."""
    egress_id = await _segments_only(stage)
    await stage.recorded(egress_id, 5)
    killed = time.time()
    _kill_worker(server, with_recorders=True)
    await stage.delete_room()
    server.start()
    played = await _played(stage, egress_id)
    assert played.missing_before(killed) < _LOST_SEC
    assert len(played.lengths) == 1
    assert "DISCONTINUITY" not in played.text
