"""The samples of seeds 000 and 004 as they stand there, but for the ids: what the SDK sends, and what the samples read."""

from __future__ import annotations

import re
from typing import Any

from server.domain.egress import EgressStatus
from tests.transport.egress_stage import EgressStage
from tests.transport.surface import headers_for

ROOM = "my-live-room"
# The first sample's client has an API key and names no project (B-61).
KEY_ALONE = headers_for(project=None)
STREAM_ONLY = {
    "roomName": "my-live-room",
    "mode": "stream",
    "layout": "speaker",
    "quality": "1080p",
    "stream": {"urls": ["rtmp://a.rtmp.youtube.com/live2/YOUR_KEY"]},
}
RECORD_ONLY = {
    "roomName": "my-live-room",
    "mode": "record",
    "layout": "grid",
    "quality": "720p",
    "file": {"fileType": "MP4"},
}
BOTH = {
    "roomName": "my-live-room",
    "mode": "both",
    "layout": "speaker",
    "quality": "1080p",
    "file": {"fileType": "MP4"},
    "stream": {
        "urls": [
            "rtmp://a.rtmp.youtube.com/live2/YOUTUBE_KEY",
            "rtmp://live.twitch.tv/app/TWITCH_KEY",
            "rtmps://live-api-s.facebook.com:443/rtmp/FB_KEY",
        ]
    },
}


async def call(egress: EgressStage, verb: str, path: str, body: Any = None) -> Any:
    answer = await egress.rest(verb, path, body, KEY_ALONE)
    assert answer.status in (200, 201, 204), answer
    return answer.reply if answer.raw else None


async def recorded(egress: EgressStage, egress_id: str) -> None:
    """There is media, and its owner ends it when told."""
    await egress.save(egress_id, status=EgressStatus.ACTIVE)
    egress.complete_when_told(egress_id)


async def test_start_stream_three_times(egress: EgressStage) -> None:
    """EG-01, EG-02, EG-03, EG-05, EG-10, EG-12, EG-27, EG-28: 000's three calls, one room, at once."""
    egress.open_room(ROOM)
    made = [await call(egress, "POST", "/v1/egress/start", body) for body in (STREAM_ONLY, RECORD_ONLY, BOTH)]
    for sent, answer in zip((STREAM_ONLY, RECORD_ONLY, BOTH), made, strict=True):
        assert re.fullmatch(r"EG_[A-Za-z0-9]+", answer["id"])
        assert answer["status"] == "STARTED"
        assert {name: answer[name] for name in ("roomName", "mode", "layout", "quality")} == {
            name: sent[name] for name in ("roomName", "mode", "layout", "quality")
        }
    assert ["recordingId" in one for one in made] == [False, True, True]
    assert [len(one["destinations"]) for one in made] == [1, 0, 3]
    assert "_KEY" not in str(made)


async def test_platform_addresses(egress: EgressStage) -> None:
    """EG-29, EG-30, EG-31, EG-32: the four kinds of 000's list, alone and together."""
    egress.open_room(ROOM)
    urls = {
        "rtmp://a.rtmp.youtube.com/live2/STREAM_KEY": "rtmp://a.rtmp.youtube.com/live2/***",
        "rtmp://live.twitch.tv/app/STREAM_KEY": "rtmp://live.twitch.tv/app/***",
        "rtmps://live-api-s.facebook.com:443/rtmp/STREAM_KEY": "rtmps://live-api-s.facebook.com:443/rtmp/***",
        "rtmps://live.example.com/app/STREAM_KEY": "rtmps://live.example.com/app/***",
    }
    for given in ([url] for url in urls):
        body = {"roomName": ROOM, "mode": "stream", "stream": {"urls": given}}
        answer = await call(egress, "POST", "/v1/egress/start", body)
        assert answer["destinations"] == [urls[given[0]]]
    body = {"roomName": ROOM, "mode": "stream", "stream": {"urls": list(urls)}}
    answer = await call(egress, "POST", "/v1/egress/start", body)
    assert answer["destinations"] == list(urls.values())


async def test_stop_status_and_list(egress: EgressStage) -> None:
    """stopStream, getStreamStatus, listStreams and its loop, deleteStream.

    EG-33, EG-34, EG-35, EG-36, EG-37, EG-38, EG-39, EG-40, EG-42, EG-43, EG-44, EG-45, EG-46.
    """
    egress.open_room(ROOM)
    made = await call(egress, "POST", "/v1/egress/start", BOTH)
    path = f"/v1/egress/{made['id']}"
    status = await call(egress, "GET", path)
    assert (status["status"], status["layout"], status["quality"]) == ("STARTED", "speaker", "1080p")
    query = "/v1/egress?roomName=my-live-room&status=STARTED&page=1&limit=20"
    items = (await call(egress, "GET", query))["items"]
    lines = [f"[{one['type']}] {one['roomName']}{one['status']}" for one in items]
    assert lines == ["[both] my-live-roomSTARTED"]
    await recorded(egress, made["id"])
    result = await call(egress, "POST", f"{path}/stop")
    assert result["status"] == "COMPLETED"
    assert (await call(egress, "GET", query))["items"] == []
    assert (await call(egress, "GET", path))["status"] == "COMPLETED"
    assert await call(egress, "DELETE", path) is None
    for verb, gone in (("GET", path), ("POST", f"{path}/stop"), ("DELETE", path)):
        assert (await egress.rest(verb, gone, None, KEY_ALONE)).status == 404


async def test_start_record_to_its_download(egress: EgressStage) -> None:
    """RC-01, RC-02, RC-03, RC-05, RC-06, RC-07, RC-12, RC-13: startRecord, stopRecord, getRecordingDownloadUrl."""
    egress.open_room(ROOM)
    recording = await call(
        egress, "POST", "/v1/recordings/start", {"roomName": "my-live-room", "fileType": "MP4"}
    )
    await recorded(egress, recording["egressId"])
    stopped = await call(egress, "POST", f"/v1/recordings/{recording['egressId']}/stop")
    assert (stopped["id"], stopped["status"]) == (recording["id"], "COMPLETED")
    link = await call(egress, "GET", f"/v1/recordings/{recording['id']}/download-url")
    assert link["expiresIn"] == 3600
    assert link["downloadUrl"].startswith("http://bax.test/o/")
    assert (await call(egress, "GET", f"/v1/egress/{recording['egressId']}"))["status"] == "COMPLETED"


async def test_auto_stream_config(egress: EgressStage) -> None:
    """updateAutoStreamConfig, then getAutoStreamConfig.

    AE-01, AE-02, AE-03, AE-04, AE-05, AE-06, AE-07, AE-08, AE-10, AE-11, AE-12.
    """
    sent = {
        "enabled": True,
        "mode": "record",
        "layout": "speaker",
        "quality": "720p",
        "minParticipants": 2,
        "delaySeconds": 10,
        "roomNamePattern": "meeting-*",
    }
    config = await call(egress, "PUT", "/v1/egress/auto-egress", sent)
    assert config.items() >= sent.items()
    current = await call(egress, "GET", "/v1/egress/auto-egress")
    assert current == config
    assert current["enabled"] is True


async def test_rtcstacks_recording(egress: EgressStage) -> None:
    """For seed 004's `room-abc`: the four answers have the keys that stand there, and no other.

    RT-02, RT-03, RT-04, RT-05, RT-06, RT-07, RT-08, RT-09, RT-11, RT-12, RT-13.
    """
    egress.open_room("room-abc")
    base = "/v1/rooms/room-abc/recording"
    assert await call(egress, "GET", base) == {"active": False}
    begun = await call(egress, "POST", f"{base}/start")
    assert list(begun) == ["egressId", "status", "startedAt"]
    assert begun["status"] == "starting"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", begun["startedAt"])
    assert await call(egress, "POST", f"{base}/start") == begun
    assert await call(egress, "GET", base) == {
        "active": True,
        "egressId": begun["egressId"],
        "startedAt": begun["startedAt"],
    }
    assert await call(egress, "POST", f"{base}/stop") == {"egressId": begun["egressId"], "status": "stopping"}
    assert await call(egress, "GET", base) == {"active": False}
