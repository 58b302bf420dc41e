"""The calls of LiveKit's egress documents (seed 002), and LiveKit's own SDKs, unmodified, against us (LK-04, LK-06, LK-60).

The document's Go samples are compiled and run in test_go_clients.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from livekit import api
from livekit.protocol import egress as pb
from livekit.protocol import room as room_pb

from tests.livekit.stage import OTHERS, OWN, LiveKitStage, Pair
from tests.livekit.test_sdks import installed_sdk
from tools.generate_stubs import search_path

ROOM = "your-room"
RECORD = {"roomRecord": True}
# Line 7 of the document, with our host and token in it.
CURL = r"""
curl -X POST https://<your-livekit-host>/twirp/livekit.Egress/StartRoomCompositeEgress \
-H 'Authorization: Bearer <livekit-access-token>' \
-H 'Content-Type: application/json' \
-d '{"room_name": "your-room", "segments": {"filename_prefix": "your-hls-playlist.m3u8", "s3": {"access_key": "<key>", "secret": "<secret>", "bucket": "<bucket>", "region": "<bucket-region>"}}}'
"""


async def open_room(stage: LiveKitStage, name: str) -> str:
    answer = await stage.ask("RoomService/CreateRoom", {"name": name}, OWN.token({"roomCreate": True}))
    sid: str = answer.json["sid"]
    return sid


async def test_the_curl_sample(stage: LiveKitStage) -> None:
    """LK-02, LK-03, LK-04, LK-05: the line as it stands there, and the answer that stands below it."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    sid = await open_room(stage, ROOM)
    line = CURL.replace("https://<your-livekit-host>", stage.url)
    line = line.replace("<livekit-access-token>", OWN.token(RECORD)).replace("\\\n", " ")
    curl = await asyncio.create_subprocess_exec(
        *shlex.split(line), "--silent", "--max-time", "20", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await curl.communicate()
    info = json.loads(out)
    assert info["egress_id"].startswith("EG_")
    assert (info["room_id"], info["room_name"], info["status"]) == (sid, ROOM, "EGRESS_STARTING")
    upload = info["room_composite"]["segments"]["s3"]
    assert (upload["access_key"], upload["secret"]) == ("{access_key}", "{secret}")
    assert (upload["bucket"], upload["region"]) == ("<bucket>", "<bucket-region>")
    async with stage.database.read() as tx:
        stored = await tx.egresses.secrets(info["egress_id"])
    assert stored.storages[0].config["secret"] == "<secret>"


async def test_the_samples_of_other_languages(stage: LiveKitStage) -> None:
    """LK-60: what the Go, Ruby and Java samples send, as JSON."""
    await open_room(stage, "my-room")
    token = OWN.token(RECORD)
    stream = {"protocol": "RTMP", "urls": ["rtmp://live.twitch.tv/app/<stream-key>"]}
    go = {"room_name": "my-room", "layout": "speaker", "stream": stream}
    info = (await stage.ask("Egress/StartRoomCompositeEgress", go, token)).json
    assert info["stream_results"][0]["url"] == "rtmp://live.twitch.tv/app/{<st...ey>}"
    key = "rtmp://a.rtmp.youtube.com/live2/<stream-key>"
    body = {"egress_id": info["egress_id"], "add_output_urls": [key]}
    answer = await stage.ask("Egress/UpdateStream", body, token)
    assert [one["status"] for one in answer.json["stream_results"]] == ["ACTIVE", "ACTIVE"]
    assert "<stream-key>" not in answer.body.decode()
    for layout in ("grid-light", "grid-dark", "speaker"):
        body = {"egress_id": info["egress_id"], "layout": layout}
        answer = await stage.ask("Egress/UpdateLayout", body, token)
        assert answer.json["room_composite"]["layout"] == layout
    for body in ({"room_name": "my-room"}, {}):
        listed = (await stage.ask("Egress/ListEgress", body, token)).json
        assert [one["egress_id"] for one in listed["items"]] == [info["egress_id"]]
    assert (await stage.ask("Egress/ListEgress", {"room_name": "myroom"}, token)).json["items"] == []
    new, old = "rtmp://new-url.example.com/app/<stream-key>", "rtmp://live.twitch.tv/app/<stream-key>"
    body = {"egress_id": info["egress_id"], "add_output_urls": [new], "remove_output_urls": [old]}
    results = (await stage.ask("Egress/UpdateStream", body, token)).json["stream_results"]
    assert [one["status"] for one in results] == ["FINISHED", "ACTIVE", "ACTIVE"]
    answer = await stage.ask("Egress/StopEgress", {"egress_id": info["egress_id"]}, token)
    assert answer.status == 200


@pytest.mark.parametrize("pair", [OWN, OTHERS], ids=["bootstrap", "other"])
async def test_the_python_sdk(stage: LiveKitStage, pair: Pair) -> None:
    """LK-06: every egress call of `livekit-api`, for a project whose rooms have a hidden prefix too."""
    async with api.LiveKitAPI(stage.url, pair.api_key, pair.api_secret) as lk:
        room = await lk.room.create_room(room_pb.CreateRoomRequest(name=ROOM))
        file = pb.EncodedFileOutput(filepath="{room_name}-{time}", s3=pb.S3Upload(bucket="b", secret="s"))
        stream = pb.StreamOutput(protocol=pb.RTMP, urls=["rtmp://live.twitch.tv/app/stream-key"])
        info = await lk.egress.start_room_composite_egress(
            pb.RoomCompositeEgressRequest(
                room_name=ROOM, layout="speaker", file_outputs=[file], stream_outputs=[stream]
            )
        )
        assert (info.room_id, info.room_name, info.status) == (room.sid, ROOM, pb.EGRESS_STARTING)
        assert info.room_composite.file_outputs[0].s3.secret == "{secret}"
        update = pb.UpdateStreamRequest(egress_id=info.egress_id, add_output_urls=["twitch://other-key"])
        assert len((await lk.egress.update_stream(update)).stream_results) == 2
        layout = pb.UpdateLayoutRequest(egress_id=info.egress_id, layout="grid-dark")
        assert (await lk.egress.update_layout(layout)).room_composite.layout == "grid-dark"
        listed = await lk.egress.list_egress(pb.ListEgressRequest(active=True))
        assert [one.egress_id for one in listed.items] == [info.egress_id]
        stopped = await lk.egress.stop_egress(pb.StopEgressRequest(egress_id=info.egress_id))
        assert stopped.egress_id == info.egress_id
        await lk.egress.start_participant_egress(
            pb.ParticipantEgressRequest(room_name=ROOM, identity="ann", file_outputs=[file])
        )
        await lk.egress.start_track_composite_egress(
            pb.TrackCompositeEgressRequest(room_name=ROOM, audio_track_id="TR_a", file_outputs=[file])
        )
        await lk.egress.start_track_egress(
            pb.TrackEgressRequest(room_name=ROOM, track_id="TR_a", file=pb.DirectFileOutput())
        )
        await lk.egress.start_web_egress(pb.WebEgressRequest(url="https://example.com", file_outputs=[file]))
        await lk.egress.start_egress(
            pb.StartEgressRequest(
                room_name=ROOM, template=pb.TemplateSource(), outputs=[pb.Output(file=pb.FileOutput())]
            )
        )
        with pytest.raises(api.TwirpError) as caught:
            await lk.egress.stop_egress(pb.StopEgressRequest(egress_id="EG_missing"))
        assert (caught.value.status, caught.value.code) == (404, "not_found")


async def test_the_node_sdk(stage: LiveKitStage, node_egress: Callable[[Pair], Awaitable[Any]]) -> None:
    """LK-48, LK-51, LK-54, LK-56, LK-57, LK-58, LK-60: the samples of the document in the language they are written in."""
    told = await node_egress(OWN)
    problems = {name: value for name, value in told.items() if "error" in str(value)[:10]}
    assert {name: (value["status"], value["code"]) for name, value in problems.items()} == {
        "missing room": (404, "not_found"),
        "missing egress": (404, "not_found"),
        "no output": (400, "invalid_argument"),
    }
    # The SDK leaves out what has number 0: EGRESS_STARTING, ACTIVE.
    assert "status" not in told["stream"]
    assert told["stream"]["egressId"].startswith("EG_")
    assert [one["url"] for one in told["update stream"]["streamResults"]] == [
        "rtmp://live.twitch.tv/app/{<st...ey>}",
        "rtmp://a.rtmp.youtube.com/live2/{str...key}",
    ]
    assert told["update layout"]["roomComposite"]["layout"] == "grid-light"
    assert len(told["list"]) == len(told["list of room"]) == 1
    everything = told["all outputs"]["roomComposite"]
    assert everything["preset"] == "H264_1080P_30"
    assert everything["fileOutputs"][0]["s3"]["secret"] == "{secret}"
    assert {"segmentOutputs", "imageOutputs", "streamOutputs"} <= everything.keys()
    assert told["old file form"]["roomComposite"]["file"]["filepath"] == "{room_name}-{time}"
    assert told["track"]["track"]["websocketUrl"] == "wss://example.com/in"


@pytest.fixture
def node_egress(stage: LiveKitStage) -> Callable[[Pair], Awaitable[Any]]:
    """Runs the script with LiveKit's SDK for Node.js; skips where there is none."""
    folder = installed_sdk()

    async def run(pair: Pair) -> Any:
        script = await asyncio.create_subprocess_exec(
            "node", str(folder / "egress.mjs"), stage.url, pair.api_key, pair.api_secret, ROOM,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PATH": search_path()},
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await script.communicate()
        assert script.returncode == 0, err.decode()
        return json.loads(out)

    return run
