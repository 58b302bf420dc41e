"""Rooms recorded and streamed for real: seed 000's and 004's calls on a real LiveKit, RTMP server and storage."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.e2e.recording_stage import Stage, decoded
from tests.people import People, Person
from tests.servers.bax import API_KEY, PROJECT, BaxServer, bax_server, run_bax
from tests.servers.livekit import LiveKitServer
from tests.servers.rtmp import RtmpServer, rtmp_server
from tests.sinks import Sink

_ANN = Person("ann", name="Ann", width=640, height=360, hz=1000)
_BOB = Person("bob", name="Bob", width=640, height=360, audio=False)
_FULL = (slice(None), slice(None))


@pytest.fixture(scope="module")
def recording_server(tmp_path_factory: pytest.TempPathFactory, livekit: LiveKitServer) -> Iterator[BaxServer]:
    with bax_server(tmp_path_factory.mktemp("egress"), **livekit.settings) as server:
        yield server


@pytest.fixture(scope="module")
def rtmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtmpServer]:
    with rtmp_server(tmp_path_factory.mktemp("rtmp")) as server:
        yield server


@pytest.fixture
async def stage(
    recording_server: BaxServer, livekit: LiveKitServer, eventually: Eventually
) -> AsyncIterator[Stage]:
    room = f"room-{uuid.uuid4().hex[:8]}"
    async with People(livekit) as people, Sink() as hook:
        stage = Stage(recording_server, people, hook, room, eventually)
        endpoint = await stage.call("POST", "/v1/webhooks", {"url": f"{hook.url}/hook", "events": ["*"]})
        yield stage
        await stage.call("DELETE", f"/v1/webhooks/{endpoint['id']}")


async def test_a_room_is_recorded(stage: Stage) -> None:
    """A file that can be fetched, what its manifest and its events say of it.

    EG-02, EG-06, EG-08, EG-20, EG-33, RC-16, RC-17, WH-01, WH-02, WH-03, WH-25, WH-26, WH-27, WH-28, WH-29,
    WH-30, WH-40, WH-41, WH-42, WH-43.
    """
    await stage.join(_ANN)
    egress = await stage.start(mode="record", layout="grid", quality="720p", file={"fileType": "MP4"})
    assert (egress["type"], egress["layout"], egress["quality"]) == ("record", "grid", "720p")
    await stage.recorded(egress["id"], 3)
    done = await stage.stop(egress["id"])
    assert done["status"] == "COMPLETED"

    recording = await stage.call("GET", f"/v1/recordings/{done['recordingId']}")
    assert recording["fileUrl"].endswith(f"/recordings/{recording['id']}.mp4")
    manifest = await stage.call("GET", f"/v1/recordings/{recording['id']}/manifest")
    address = await stage.call("GET", f"/v1/recordings/{recording['id']}/download-url?expiresIn=60")
    file = await stage.file(address["downloadUrl"])
    assert file.size == recording["fileSize"] == manifest["objects"][0]["size"]
    assert file.luma[0].shape == (720, 1280)
    assert file.is_steady()
    assert len(file.times) == manifest["framesComposed"] == round(manifest["durationMs"] * 30 / 1000)
    assert recording["durationSec"] == round(manifest["durationMs"] / 1000)
    numbers = file.numbers(_FULL)
    # On a busy machine the recording may begin before the first picture is there.
    shown = numbers[next(index for index, number in enumerate(numbers) if number is not None) :]
    counted = [number for number in shown if number is not None]
    assert len(counted) > 0.9 * len(shown)
    assert len(shown) > 0.3 * len(numbers)
    assert counted == sorted(counted)
    assert manifest["gaps"] == []
    assert {track["identity"] for track in manifest["tracks"]} == {"ann"}

    started = await stage.heard("recording.started")
    completed = await stage.heard("recording.completed")
    assert started == {
        "recordingId": recording["id"],
        "egressId": egress["id"],
        "roomName": stage.room,
        "type": "record",
        "quality": "720p",
        "layout": "grid",
    }
    expected = {name: recording[name] for name in ("durationSec", "fileUrl", "fileSize")}
    assert expected.items() <= completed.items()
    assert completed["status"] == "COMPLETED"


async def test_picture_and_sound_belong_together(stage: Stage) -> None:
    """Issue section 6: flash and beep of the same moment stay within 60 ms of each other."""
    await stage.join(_ANN)
    egress = await stage.start(mode="record", layout="grid", quality="480p")
    # Two seconds more than are needed: a busy publisher leaves out flashes.
    await stage.recorded(egress["id"], 8)
    done = await stage.stop(egress["id"])
    file = await stage.file(done["fileUrl"])
    flashes, sounds = file.flashes(_FULL), file.beeps()
    offsets = [min((beep - flash for beep in sounds), key=abs) for flash in flashes]
    assert len(offsets) >= 4
    # The publisher's own offset, which track egress measures, is part of this: far from a lip that is out of step.
    assert sorted(map(abs, offsets))[len(offsets) // 2] < 0.12


async def test_two_streams_and_no_file(stage: Stage, rtmp: RtmpServer, eventually: Eventually) -> None:
    """Two destinations, redacted, nothing kept.

    EG-03, EG-10, EG-11, EG-36, WH-05, WH-06, WH-07, WH-31, WH-32, WH-33, WH-34, WH-35, WH-36.
    """
    await stage.join(_ANN, _BOB)
    keys = [f"one-{uuid.uuid4().hex}", f"two-{uuid.uuid4().hex}"]
    egress = await stage.start(
        mode="stream", layout="speaker", quality="480p", stream={"urls": [rtmp.url(key) for key in keys]}
    )
    shown = [f"rtmp://127.0.0.1:{rtmp.port}/live/***"] * 2
    assert egress["destinations"] == shown
    assert "recordingId" not in egress
    await eventually(lambda: set(keys) <= rtmp.publishing(), within=20)
    await stage.recorded(egress["id"], 3)
    done = await stage.stop(egress["id"])
    assert done["status"] == "COMPLETED"
    await stage.heard("stream.completed")
    started = await stage.heard("stream.started")
    assert started == {
        "egressId": egress["id"],
        "roomName": stage.room,
        "type": "stream",
        "quality": "480p",
        "layout": "speaker",
        "destinations": shown,
    }
    assert await stage.heard("stream.updated")
    assert not stage.events("recording.")
    assert not any(key in body for body in stage.bodies for key in keys)
    for key in keys:
        size = sum(file.stat().st_size for file in rtmp.recorded(key))
        assert size > 50_000
    listed = await stage.call("GET", f"/v1/recordings?roomName={stage.room}")
    assert listed["items"] == []


async def test_recorded_and_streamed_while_one_destination_refuses(
    stage: Stage, rtmp: RtmpServer, eventually: Eventually
) -> None:
    """EG-05, EG-12, B-45: one encode for both; a dead destination hurts neither the other nor the file."""
    await stage.join(_ANN)
    key = f"alive-{uuid.uuid4().hex}"
    egress = await stage.start(
        mode="both",
        quality="480p",
        stream={"urls": [rtmp.url(key), "rtmp://127.0.0.1:1/live/dead"]},
        file={"fileType": "mp4"},
    )
    await eventually(lambda: key in rtmp.publishing(), within=20)
    await stage.recorded(egress["id"], 2)
    done = await stage.stop(egress["id"])
    assert done["status"] == "COMPLETED"
    await stage.heard("recording.completed")
    await stage.heard("stream.completed")
    assert not stage.events("stream.failed")
    assert (await stage.file(done["fileUrl"])).is_steady()


async def test_a_stream_that_nobody_takes_fails(stage: Stage) -> None:
    """EG-48, WH-08, WH-46: RTMP_CONNECTION_REFUSED, in the row and in the event."""
    await stage.join(_ANN)
    egress = await stage.call(
        "POST",
        "/v1/egress/start",
        {"roomName": stage.room, "mode": "stream", "stream": {"urls": ["rtmp://127.0.0.1:1/live/k"]}},
    )
    failed = await stage.ended(egress["id"])
    assert (failed["status"], failed["errorCode"]) == ("FAILED", "RTMP_CONNECTION_REFUSED")
    told = await stage.heard("stream.failed")
    assert told["errorCode"] == "RTMP_CONNECTION_REFUSED"
    assert told["errorMessage"] == failed["errorMessage"]
    assert told["status"] == "FAILED"


async def test_recordings_by_their_own_calls(stage: Stage) -> None:
    """RC-01, RC-02, RC-03, RC-05, RC-08, RC-10, RC-11: seed 001's startRecord and stopRecord."""
    await stage.join(_ANN)
    begun = await stage.call("POST", "/v1/recordings/start", {"roomName": stage.room, "fileType": "MP4"})
    assert begun["id"].startswith("rec_")
    await stage.active(begun["egressId"])
    active = await stage.call("GET", f"/v1/recordings/active?roomName={stage.room}")
    assert [one["id"] for one in active["items"]] == [begun["id"]]
    await stage.recorded(begun["egressId"], 1)
    stopped = await stage.call("POST", f"/v1/recordings/{begun['egressId']}/stop", {})
    assert stopped["status"] == "COMPLETED"
    listed = await stage.call("GET", f"/v1/recordings?status=completed&roomName={stage.room}&page=1&limit=20")
    assert [one["id"] for one in listed["items"]] == [begun["id"]]
    again = await stage.call("POST", f"/v1/egress/{begun['egressId']}/stop", {})
    assert again["status"] == "COMPLETED"


async def test_rtcstack_records_a_room_once(stage: Stage, eventually: Eventually) -> None:
    """Start twice, one recording; its file is named after room and time.

    RT-01, RT-02, RT-04, RT-07, RT-08, RT-09, RT-11, RT-13, B-66, B-70.
    """
    await stage.join(_ANN)
    path = f"/v1/rooms/{stage.room}/recording"
    assert await stage.call("GET", path) == {"active": False}
    first = await stage.call("POST", f"{path}/start", status=201)
    again = await stage.call("POST", f"{path}/start", status=200)
    assert first == again
    assert first["status"] == "starting"
    assert (await stage.call("GET", path))["egressId"] == first["egressId"]
    await stage.recorded(first["egressId"], 1)
    assert await stage.call("POST", f"{path}/stop") == {"egressId": first["egressId"], "status": "stopping"}
    done = await stage.ended(first["egressId"])
    assert done["status"] == "COMPLETED"
    assert f"/{stage.room}/20" in done["fileUrl"]
    problem = await stage.call("POST", f"{path}/stop", status=404)
    assert problem["detail"] == "No active recording for this room"


@pytest.mark.parametrize(("file_type", "codecs"), [("WEBM", {"vp9", "opus"}), ("OGG", {"opus"})])
async def test_other_containers(stage: Stage, file_type: str, codecs: set[str]) -> None:
    """EG-07: what was asked for is what the file is."""
    await stage.join(_ANN)
    egress = await stage.start(mode="record", quality="480p", file={"fileType": file_type})
    await stage.recorded(egress["id"], 2)
    done = await stage.stop(egress["id"])
    assert done["fileUrl"].endswith(f".{file_type.lower()}")
    assert set((await stage.file(done["fileUrl"])).codecs) == codecs


async def test_a_pause_is_cut_out(stage: Stage) -> None:
    """Design section 13: the file goes on as if nothing had been in between, the manifest tells."""
    await stage.join(_ANN)
    egress = await stage.start(mode="record", quality="480p")
    await stage.recorded(egress["id"], 1.5)
    paused = await stage.call("POST", f"/v1/egress/{egress['id']}/pause", {"mode": "cut"})
    assert paused["paused"] is True
    before = await stage.settled(egress["id"])
    resumed = await stage.call("POST", f"/v1/egress/{egress['id']}/resume", {})
    assert resumed["paused"] is False
    await stage.recorded(egress["id"], before + 1.5)
    done = await stage.stop(egress["id"])
    file = await stage.file(done["fileUrl"])
    assert file.is_steady()
    manifest = await stage.call("GET", f"/v1/recordings/{done['recordingId']}/manifest")
    assert [gap["reason"] for gap in manifest["gaps"]] == ["PAUSED"]
    counted = [number for number in file.numbers(_FULL) if number is not None]
    jumps = [later - earlier for earlier, later in pairwise(counted)]
    assert max(jumps) * 1000 / 30 == pytest.approx(manifest["gaps"][0]["durationMs"], abs=250)


async def test_it_ends_with_the_room(stage: Stage) -> None:
    """Livekit-surface 5.4: the room is deleted, the recording completes by itself."""
    await stage.join(_ANN)
    egress = await stage.start(mode="record", quality="480p")
    await stage.recorded(egress["id"], 1)
    await stage.call("DELETE", f"/v1/rooms/{stage.room}")
    done = await stage.ended(egress["id"])
    assert done["status"] == "COMPLETED"
    assert done["durationSec"] >= 1


async def test_it_ends_when_everybody_has_left_for_a_while(stage: Stage) -> None:
    """Issue section 4: for the room's own `emptyTimeout`; the recorder is nobody who stays."""
    await stage.call("POST", "/v1/rooms", {"name": stage.room, "emptyTimeout": 1})
    await stage.join(_ANN)
    egress = await stage.start(mode="record", quality="480p")
    await stage.recorded(egress["id"], 2)
    await stage.people.tell(_ANN.identity, "leave")
    done = await stage.ended(egress["id"])
    assert done["status"] == "COMPLETED", done
    assert done["durationSec"] >= 2


async def test_stopped_before_anything_was_recorded(stage: Stage) -> None:
    """Design section 13: FAILED with EGRESS_ABORTED, or a file that is whole, but never stuck."""
    await stage.join(_ANN)
    egress = await stage.call("POST", "/v1/egress/start", {"roomName": stage.room, "mode": "record"})
    done = await stage.stop(egress["id"])
    assert done["status"] in ("COMPLETED", "FAILED")
    if done["status"] == "FAILED":
        assert done["errorCode"] == "EGRESS_ABORTED"


async def test_a_room_with_enough_people_is_recorded_by_itself(stage: Stage, eventually: Eventually) -> None:
    """AE-01, AE-06, AE-08, AE-13: the second one who joins starts it."""
    rules = {"enabled": True, "mode": "record", "quality": "480p", "minParticipants": 2}
    await stage.call("PUT", "/v1/egress/auto-egress", {**rules, "roomNamePattern": "room-*"})
    try:
        await stage.join(_ANN)
        assert (await stage.call("GET", f"/v1/egress?roomName={stage.room}"))["items"] == []
        await stage.join(_BOB)

        async def started() -> str | None:
            items = (await stage.call("GET", f"/v1/egress?roomName={stage.room}"))["items"]
            return items[0]["id"] if items else None

        egress_id = await eventually(started, within=20)
        await stage.recorded(egress_id, 1)
        assert (await stage.stop(egress_id))["status"] == "COMPLETED"
    finally:
        await stage.call("PUT", "/v1/egress/auto-egress", {"enabled": False})


async def test_a_finished_recording_can_be_downloaded_by_the_command_line(
    stage: Stage, tmp_path: Path
) -> None:
    """Issue section 8: `bax record ROOM -o out.mp4`."""
    await stage.join(_ANN)
    target = tmp_path / "out.mp4"
    environment = {"BAX_URL": stage.server.url, "BAX_API_KEY": API_KEY, "BAX_PROJECT_ID": PROJECT}
    ran = await asyncio.to_thread(
        run_bax, "record", stage.room, "--quality", "480p", "--for", "3", "-o", str(target), env=environment
    )
    assert ran.returncode == 0, ran.stderr
    assert "COMPLETED" in ran.stdout
    assert decoded(target.read_bytes()).is_steady()


async def test_a_room_recorded_track_by_track_is_composed_later(stage: Stage, eventually: Eventually) -> None:
    """Issue section 1: `tracks` mode, then any layout and quality of it as a job."""
    await stage.join(_ANN, _BOB)
    egress = await stage.start(mode="record", tracks=True)
    assert egress["tracks"] is True
    await stage.recorded(egress["id"], 4)
    done = await stage.stop(egress["id"])
    assert done["status"] == "COMPLETED", done
    source = done["recordingId"]
    refused = await stage.call("GET", f"/v1/recordings/{source}/download-url", status=409)
    assert refused["error"]["code"] == "RECORDING_HAS_NO_FILE"

    wanted = {"layout": "grid", "quality": "480p", "fileType": "WEBM"}
    begun = await stage.call("POST", f"/v1/recordings/{source}/compose", wanted)
    assert (begun["status"], begun["egressId"], begun["fileType"]) == ("STARTED", egress["id"], "WEBM")

    async def composed() -> dict[str, object] | None:
        recording: dict[str, object] = await stage.call("GET", f"/v1/recordings/{begun['id']}")
        return recording if recording["status"] != "STARTED" else None

    recording = await eventually(composed, within=60, every=0.2)
    assert recording["status"] == "COMPLETED", recording
    file = await stage.file(recording["fileUrl"])
    assert set(file.codecs) == {"vp9", "opus"}
    assert file.is_steady()
    assert file.seconds == pytest.approx(done["durationSec"], abs=1.5)
    left, right = (slice(None), slice(0, 427)), (slice(None), slice(427, 854))
    for area in (left, right):
        counted = [number for number in file.numbers(area) if number is not None]
        assert len(counted) > 0.6 * len(file.luma)
        assert counted == sorted(counted)
    plain = await stage.call("POST", f"/v1/recordings/{begun['id']}/compose", {}, status=409)
    assert plain["error"]["code"] == "RECORDING_HAS_NO_TRACKS"
