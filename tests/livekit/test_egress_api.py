"""`livekit.Egress` over HTTP and gRPC, in front of a real LiveKit; without a worker, so nothing is recorded (LK)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.livekit.stage import OTHERS, OWN, Answer, LiveKitStage, Pair

RECORD = {"roomRecord": True}
FILE = {"file_outputs": [{"filepath": "a.mp4"}]}


async def open_room(stage: LiveKitStage, name: str, pair: Pair = OWN) -> str:
    """Its sid."""
    answer = await stage.ask("RoomService/CreateRoom", {"name": name}, pair.token({"roomCreate": True}))
    sid: str = answer.json["sid"]
    return sid


async def egress(
    stage: LiveKitStage, method: str, body: Mapping[str, Any], pair: Pair = OWN, **video: Any
) -> Answer:
    return await stage.ask(f"Egress/{method}", body, pair.token({**RECORD, **video}))


async def started(stage: LiveKitStage, method: str, body: Mapping[str, Any], pair: Pair = OWN) -> Any:
    answer = await egress(stage, method, body, pair)
    assert answer.status == 200, answer.body
    return answer.json


async def test_room_composite_from_start_to_stop(stage: LiveKitStage) -> None:
    """LK-05, LK-07, LK-56, LK-58: started, listed, stopped."""
    sid = await open_room(stage, "hall")
    info = await started(stage, "StartRoomCompositeEgress", {"room_name": "hall", "layout": "speaker", **FILE})
    assert info["egress_id"].startswith("EG_")
    assert len(info["egress_id"]) == 15
    assert (info["room_id"], info["room_name"], info["status"]) == (sid, "hall", "EGRESS_STARTING")
    assert info["room_composite"]["layout"] == "speaker"
    assert int(info["started_at"]) == int(info["updated_at"]) > 1_700_000_000 * 10**9
    listed = await egress(stage, "ListEgress", {})
    assert [one["egress_id"] for one in listed.json["items"]] == [info["egress_id"]]
    stopped = await egress(stage, "StopEgress", {"egress_id": info["egress_id"]})
    assert stopped.status == 200, stopped.body


async def test_rooms_of_another_project_do_not_exist(stage: LiveKitStage) -> None:
    """LK-08: and an answer never shows LiveKit's own name of a room."""
    await open_room(stage, "shared", OTHERS)
    assert (await egress(stage, "StartRoomCompositeEgress", {"room_name": "shared", **FILE})).status == 404
    answer = await egress(stage, "StartRoomCompositeEgress", {"room_name": "shared", **FILE}, OTHERS)
    assert answer.status == 200
    assert b"bax:" not in answer.body
    assert answer.json["room_name"] == "shared"
    listed = await egress(stage, "ListEgress", {"egress_id": answer.json["egress_id"]})
    assert (listed.status, listed.json["code"]) == (404, "not_found")
