"""Recordings through BaxCloud's calls."""

from __future__ import annotations

import re
from typing import Any

import pytest

from server.domain.egress import EgressStatus
from tests.transport.egress_stage import EgressStage
from tests.transport.surface import OTHER_KEY, OTHER_PROJECT, headers_for

OTHERS = headers_for(OTHER_KEY, OTHER_PROJECT)


async def started(stage: EgressStage, room: str = "studio", **body: Any) -> dict[str, Any]:
    answer = await stage.rest("POST", "/v1/recordings/start", {"roomName": room, **body})
    assert answer.status == 201, answer
    reply: dict[str, Any] = answer.reply
    return reply


async def listed(stage: EgressStage, query: str = "") -> list[str]:
    reply = (await stage.rest("GET", f"/v1/recordings{query}")).reply
    assert reply["total"] == len(reply["items"])
    return [one["id"] for one in reply["items"]]


async def test_starting(egress: EgressStage) -> None:
    """RC-01, RC-02, RC-03, RC-06."""
    made = await started(egress, fileType="MP4")
    assert re.fullmatch(r"rec_[a-z0-9]+", made["id"])
    assert re.fullmatch(r"EG_[A-Za-z0-9]{12}", made["egressId"])
    assert {key: made[key] for key in ("roomName", "status", "fileType", "layout", "quality")} == {
        "roomName": "studio",
        "status": "STARTED",
        "fileType": "MP4",
        "layout": "default",
        "quality": "720p",
    }
    shown = (await egress.rest("GET", f"/v1/egress/{made['egressId']}")).reply
    assert (shown["type"], shown["recordingId"]) == ("record", made["id"])
    assert (await egress.rest("GET", f"/v1/recordings/{made['id']}")).reply == made


async def test_options_and_their_defaults(egress: EgressStage) -> None:
    """RC-15, EG-07."""
    assert (await started(egress))["fileType"] == "MP4"
    made = await started(egress, fileType="webm", layout="grid", quality="1080p")
    assert (made["fileType"], made["layout"], made["quality"]) == ("WEBM", "grid", "1080p")
    for field in ("fileType", "layout", "quality"):
        answer = await egress.rest("POST", "/v1/recordings/start", {"roomName": "studio", field: "x"})
        assert (answer.status, answer.meta["field"]) == (400, field)
    answer = await egress.rest("POST", "/v1/recordings/start", {"fileType": "MP4"})
    assert (answer.status, answer.meta["field"]) == (400, "roomName")


async def test_stopping_by_the_egress(egress: EgressStage) -> None:
    """RC-05, RC-07, RC-17: numbers, and the address of the file."""
    made = await started(egress)
    await egress.save(made["egressId"], status=EgressStatus.ACTIVE)
    egress.complete_when_told(made["egressId"])
    stopped = await egress.rest("POST", f"/v1/recordings/{made['egressId']}/stop")
    assert (stopped.status, stopped.reply["status"]) == (200, "COMPLETED")
    assert (stopped.reply["durationSec"], stopped.reply["fileSize"]) == (62, 5)
    assert stopped.reply["fileUrl"].endswith(f"/recordings/{made['id']}.mp4")
    again = await egress.rest("POST", f"/v1/recordings/{made['egressId']}/stop")
    assert again.reply == stopped.reply
    for wrong in (made["id"], "EG_nobody"):
        assert (await egress.rest("POST", f"/v1/recordings/{wrong}/stop")).status == 404


async def test_stopping_one_whose_egress_was_deleted(egress: EgressStage) -> None:
    """It is being ended already."""
    made = await started(egress)
    await egress.save(made["egressId"], status=EgressStatus.ACTIVE)
    await egress.rest("DELETE", f"/v1/egress/{made['egressId']}")
    stopped = await egress.rest("POST", f"/v1/recordings/{made['egressId']}/stop")
    assert (stopped.status, stopped.reply["id"], stopped.reply["status"]) == (200, made["id"], "STARTED")


async def test_lists(egress: EgressStage) -> None:
    """RC-08, RC-09; B-44: whatever records makes one."""
    egress.open_room("hall")
    first = await started(egress)
    egress.clock.advance(1)
    second = await started(egress, "hall")
    egress.clock.advance(1)
    third = (await egress.start(roomName="studio", mode="record")).reply["recordingId"]
    assert await listed(egress) == [third, second["id"], first["id"]]
    await egress.complete(first["egressId"], b"x")
    assert await listed(egress, "?status=completed&page=1&limit=20") == [first["id"]]
    assert await listed(egress, "?status=COMPLETED") == [first["id"]]
    assert await listed(egress, "?roomName=hall") == [second["id"]]
    assert (await egress.rest("GET", "/v1/recordings?limit=2&page=2")).reply["items"][0]["id"] == first["id"]
    assert (await egress.rest("GET", "/v1/recordings", None, OTHERS)).reply["items"] == []


async def test_active_ones(egress: EgressStage) -> None:
    """RC-10."""

    async def active(query: str = "") -> int:
        reply = (await egress.rest("GET", f"/v1/recordings/active{query}")).reply
        assert reply["total"] == len(reply["items"])
        return len(reply["items"])

    egress.open_room("hall")
    made = await started(egress)
    await started(egress, "hall")
    assert (await active(), await active("?roomName=studio")) == (2, 1)
    await egress.complete(made["egressId"], b"x")
    assert (await active(), await active("?roomName=studio")) == (1, 0)


async def test_unknown_and_foreign_ones(egress: EgressStage) -> None:
    """RC-11, GN-07."""
    made = await started(egress)
    for recording_id, headers in (("rec_nobody", None), (made["egressId"], None), (made["id"], OTHERS)):
        for path in ("", "/download-url", "/manifest"):
            answer = await egress.rest("GET", f"/v1/recordings/{recording_id}{path}", None, headers)
            assert answer.status == 404, answer


async def test_a_download_address(egress: EgressStage) -> None:
    """RC-12, RC-13, C.2 row 13."""
    made = await started(egress)
    path = f"/v1/recordings/{made['id']}/download-url"
    early = await egress.rest("GET", path)
    assert (early.status, early.code) == (409, "RECORDING_NOT_COMPLETED")
    await egress.complete(made["egressId"], b"12345")
    link = (await egress.rest("GET", f"{path}?expiresIn=60")).reply
    assert link["expiresIn"] == 60
    assert link["downloadUrl"].endswith(f"/recordings/{made['id']}.mp4")
    assert link["expiresAt"] > (await egress.rest("GET", f"/v1/recordings/{made['id']}")).reply["endedAt"]
    assert (await egress.rest("GET", path)).reply["expiresIn"] == 3600
    for wrong in (0, -1, 604801):
        answer = await egress.rest("GET", f"{path}?expiresIn={wrong}")
        assert (answer.status, answer.meta["field"]) == (400, "expiresIn")


async def test_a_failed_one_has_no_download_address(egress: EgressStage) -> None:
    made = await started(egress)
    await egress.save(made["egressId"], status=EgressStatus.FAILED)
    assert (await egress.rest("GET", f"/v1/recordings/{made['id']}/download-url")).status == 409


async def test_the_manifest(egress: EgressStage) -> None:
    """Design section 13."""
    made = await started(egress)
    assert (await egress.rest("GET", f"/v1/recordings/{made['id']}/manifest")).status == 409
    await egress.complete(made["egressId"], b"12345")
    manifest = (await egress.rest("GET", f"/v1/recordings/{made['id']}/manifest")).reply
    assert (manifest["egressId"], manifest["durationMs"], manifest["gaps"]) == (made["egressId"], 61500, [])


async def test_only_tracks_can_be_composed(egress: EgressStage) -> None:
    made = await started(egress)
    path = f"/v1/recordings/{made['id']}/compose"
    assert (await egress.rest("POST", path)).code == "RECORDING_NOT_COMPLETED"
    await egress.complete(made["egressId"], b"x")
    answer = await egress.rest("POST", path)
    assert (answer.status, answer.code) == (409, "RECORDING_HAS_NO_TRACKS")


@pytest.mark.parametrize("path", ["/v1/recordings/start", "/v1/egress/start"])
async def test_only_with_a_key(egress: EgressStage, path: str) -> None:
    """GN-03; the admin token records nobody's rooms."""
    body = {"roomName": "studio", "mode": "record"} if "egress" in path else {"roomName": "studio"}
    assert (await egress.rest("POST", path, body, {})).status == 401
    assert (await egress.rest("POST", path, body, headers_for("operator-token"))).status == 403
