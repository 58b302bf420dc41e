"""RTCstack's routes, by key and by signature."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from server.domain.egress import EgressStatus, FileOutput, Surface
from server.domain.egress_sources import RoomSource, TrackSource
from tests.transport.egress_stage import OTHER_PAIR, PAIR, EgressStage
from tests.transport.surface import OTHER_KEY, OTHER_PROJECT, Outcome, headers_for

START, STOP, STATUS = (f"/v1/rooms/studio/recording{end}" for end in ("/start", "/stop", ""))
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def signed(
    stage: EgressStage,
    verb: str,
    url: str,
    body: bytes = b"",
    *,
    pair: tuple[str, str] = PAIR,
    age: int = 0,
    changes: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The three headers, as RTCstack's own client makes them."""
    stamp = str(int(stage.clock.now().timestamp()) - age)
    text = f"{verb}\n{url}\n{stamp}\n{hashlib.sha256(body).hexdigest()}"
    mac = hmac.new(pair[1].encode(), text.encode(), hashlib.sha256).hexdigest()
    headers = {"X-Api-Key": pair[0], "X-RTCstack-Timestamp": stamp, "X-RTCstack-Signature": f"sha256={mac}"}
    return {**headers, **(changes or {})}


def check_problem(outcome: Outcome, status: int, name: str, detail: str) -> None:
    assert outcome.status == status, outcome
    assert outcome.headers["content-type"] == "application/problem+json"
    assert outcome.reply["type"] == f"https://rtcstack.dev/errors/{name}"
    assert outcome.reply["detail"] == detail


class TestRoutes:
    async def test_the_life_of_a_recording(self, egress: EgressStage) -> None:
        """RT-02, RT-03, RT-04, RT-05, RT-06, RT-07, RT-08, RT-09, RT-11, RT-12, RT-13: exact keys."""
        assert (await egress.rest("GET", STATUS)).reply == {"active": False}
        made = await egress.rest("POST", START)
        assert made.status == 201
        assert set(made.reply) == {"egressId", "status", "startedAt"}
        assert made.reply["status"] == "starting"
        assert re.fullmatch(r"EG_[A-Za-z0-9]{12}", made.reply["egressId"])
        assert STAMP.fullmatch(made.reply["startedAt"])
        assert (await egress.rest("GET", STATUS)).reply == {
            "active": True,
            "egressId": made.reply["egressId"],
            "startedAt": made.reply["startedAt"],
        }
        await egress.save(made.reply["egressId"], status=EgressStatus.ACTIVE)
        stopped = await egress.rest("POST", STOP)
        assert (stopped.status, stopped.reply) == (
            200,
            {"egressId": made.reply["egressId"], "status": "stopping"},
        )
        assert (await egress.rest("GET", STATUS)).reply == {"active": False}
        check_problem(await egress.rest("POST", STOP), 404, "not-found", "No active recording for this room")

    async def test_what_is_recorded(self, egress: EgressStage) -> None:
        """RT-01, RT-14, RT-15, RT-19, RT-20, B-36, B-38, B-70."""
        made = (await egress.rest("POST", START)).reply
        stored = await egress.stored(made["egressId"])
        at = egress.clock.now().strftime("%Y-%m-%dT%H-%M-%S")
        assert stored.plan.outputs.files == (FileOutput("mp4", f"studio/{at}.mp4"),)
        assert stored.plan.source == RoomSource(layout="grid")
        video = stored.plan.encoding.video
        assert video is not None
        assert (video.width, video.height, video.fps, video.kbps) == (1280, 720, 30, 3000)
        assert (stored.type, stored.surface) == ("record", Surface.RTCSTACK)
        assert stored.recording_id is not None

    async def test_another_layout(self, egress: EgressStage) -> None:
        """RT-21: in the body, which may be left out; a name that is none is refused."""
        answer = await egress.rest("POST", START, {"layout": "mosaic"})
        assert (answer.status, answer.reply["type"]) == (400, "https://rtcstack.dev/errors/validation")
        made = (await egress.rest("POST", START, {"layout": "speaker"})).reply
        assert (await egress.stored(made["egressId"])).plan.source == RoomSource(layout="speaker")
        assert (await egress.orders(made["egressId"])).layout == "speaker"

    async def test_starting_again_finds_it(self, egress: EgressStage) -> None:
        """RT-07, B-66: 200 and the same body."""
        first = await egress.rest("POST", START)
        egress.clock.advance(5)
        again = await egress.rest("POST", START, {})
        assert (again.status, again.reply) == (200, first.reply)
        assert (await egress.rest("GET", "/v1/egress")).reply["total"] == 1

    async def test_one_that_was_stopped_before_it_began_is_none(self, egress: EgressStage) -> None:
        """Its worker has not said so yet; the room may be recorded anew."""
        first = (await egress.rest("POST", START)).reply
        assert (await egress.rest("POST", STOP)).reply["egressId"] == first["egressId"]
        assert (await egress.rest("GET", STATUS)).reply == {"active": False}
        assert (await egress.rest("POST", STOP)).status == 404
        second = await egress.rest("POST", START)
        assert second.status == 201
        assert second.reply["egressId"] != first["egressId"]

    async def test_many_at_once_start_one(self, egress: EgressStage) -> None:
        """RT-07: made atomic, which RTCstack's own is not."""
        answers = await asyncio.gather(*(egress.rest("POST", START) for _ in range(8)))
        assert sorted(one.status for one in answers) == [200] * 7 + [201]
        assert len({str(one.reply) for one in answers}) == 1
        assert (await egress.rest("GET", "/v1/egress")).reply["total"] == 1

    async def test_a_room_whose_recording_ends_may_start_another(self, egress: EgressStage) -> None:
        """E.1; B-70: within the same second it gets another name."""
        names = []
        for _ in range(3):
            made = (await egress.rest("POST", START)).reply
            await egress.save(made["egressId"], status=EgressStatus.ENDING)
            names.append((await egress.stored(made["egressId"])).plan.outputs.files[0].path)
        at = egress.clock.now().strftime("%Y-%m-%dT%H-%M-%S")
        assert names == [f"studio/{at}.mp4", f"studio/{at}-1.mp4", f"studio/{at}-2.mp4"]

    async def test_streams_and_single_tracks_are_no_recording_of_the_room(self, egress: EgressStage) -> None:
        """Contract F: only recordings of rooms count."""
        url = "rtmp://live.test/app/key"
        await egress.start(roomName="studio", mode="stream", stream={"urls": [url]})
        track = (await egress.start(roomName="studio", mode="record")).reply
        stored = await egress.stored(track["id"])
        async with egress.database.begin() as tx:
            single = replace(
                stored,
                id="EG_track",
                plan=replace(stored.plan, source=TrackSource("TR_1")),
                recording_id=None,
            )
            await tx.egresses.add(
                single, await tx.egresses.orders(stored.id), await tx.egresses.secrets(stored.id)
            )
            await tx.commit()
        await egress.save(track["id"], status=EgressStatus.COMPLETE)
        assert (await egress.rest("GET", STATUS)).reply == {"active": False}
        assert (await egress.rest("POST", START)).status == 201

    async def test_a_recording_started_otherwise_is_found(self, egress: EgressStage) -> None:
        made = (await egress.rest("POST", "/v1/recordings/start", {"roomName": "studio"})).reply
        found = await egress.rest("POST", START)
        assert (found.status, found.reply["egressId"]) == (200, made["egressId"])

    async def test_rooms_of_another_project_are_others(self, egress: EgressStage) -> None:
        await egress.rest("POST", START)
        others = headers_for(OTHER_KEY, OTHER_PROJECT)
        assert (await egress.rest("GET", STATUS, None, others)).reply == {"active": False}
        check_problem(
            await egress.rest("POST", STOP, None, others),
            404,
            "not-found",
            "No active recording for this room",
        )

    async def test_a_room_that_is_not_open(self, egress: EgressStage) -> None:
        """RT-13: never seen is not recording; starting is 404 (B-72)."""
        assert (await egress.rest("GET", "/v1/rooms/nowhere/recording")).reply == {"active": False}
        answer = await egress.rest("POST", "/v1/rooms/nowhere/recording/start")
        check_problem(answer, 404, "not-found", "requested room does not exist")

    async def test_a_room_that_must_not_be_recorded(self, egress: EgressStage) -> None:
        await egress.forbid_recording("secret")
        answer = await egress.rest("POST", "/v1/rooms/secret/recording/start")
        assert (answer.status, answer.reply["code"]) == (409, "RECORDING_DISABLED")


class TestSignatures:
    """Contract F, B-68."""

    @pytest.mark.parametrize("body", [None, b"", b"{}"])
    async def test_signed_calls(self, egress: EgressStage, body: bytes | None) -> None:
        made = await egress.rest("POST", START, body, signed(egress, "POST", START, body or b""))
        assert made.status == 201, made
        shown = await egress.rest("GET", STATUS, None, signed(egress, "GET", STATUS))
        assert shown.reply["egressId"] == made.reply["egressId"]

    async def test_over_the_empty_body_whatever_is_sent(self, egress: EgressStage) -> None:
        """As RTCstack's own server checks it."""
        made = await egress.rest("POST", START, b"{}", signed(egress, "POST", START, b""))
        assert made.status == 201

    async def test_the_query_and_the_escapes_are_signed_as_sent(self, egress: EgressStage) -> None:
        egress.open_room("my room/1")
        url = "/v1/rooms/my%20room%2F1/recording/start?a=b%20c"
        assert (await egress.rest("POST", url, None, signed(egress, "POST", url))).status == 201
        bare = url.partition("?")[0]
        assert (await egress.rest("POST", url, None, signed(egress, "POST", bare))).status == 401

    async def test_the_pair_is_its_projects(self, egress: EgressStage) -> None:
        await egress.rest("POST", START, None, signed(egress, "POST", START, pair=OTHER_PAIR))
        assert (await egress.rest("GET", STATUS)).reply == {"active": False}
        others = headers_for(OTHER_KEY, OTHER_PROJECT)
        assert (await egress.rest("GET", STATUS, None, others)).reply["active"] is True
        named = signed(egress, "GET", STATUS, changes={"X-Project-Id": OTHER_PROJECT})
        assert (await egress.rest("GET", STATUS, None, named)).status == 403

    @pytest.mark.parametrize(
        ("verb", "url", "body", "changes", "detail"),
        [
            ("POST", START, b"", {"X-Api-Key": "APInobody"}, "Missing or invalid X-Api-Key header"),
            ("POST", START, b"", {"X-Api-Key": ""}, "Missing or invalid X-Api-Key header"),
            (
                "POST",
                START,
                b"",
                {"X-RTCstack-Signature": ""},
                "Missing X-RTCstack-Timestamp or X-RTCstack-Signature header",
            ),
            (
                "POST",
                START,
                b"",
                {"X-RTCstack-Timestamp": ""},
                "Missing X-RTCstack-Timestamp or X-RTCstack-Signature header",
            ),
            (
                "POST",
                START,
                b"",
                {"X-RTCstack-Timestamp": "soon"},
                "Request timestamp too old or too far in the future (replay protection)",
            ),
            (
                "POST",
                START,
                b"",
                {"X-RTCstack-Signature": "sha256=" + "0" * 64},
                "Invalid X-RTCstack-Signature",
            ),
            ("POST", START, b"", {"X-RTCstack-Signature": "\xe4"}, "Invalid X-RTCstack-Signature"),
            ("GET", START, b"", {}, "Invalid X-RTCstack-Signature"),
            ("POST", STOP, b"", {}, "Invalid X-RTCstack-Signature"),
            ("POST", START, b'{"other": 1}', {}, "Invalid X-RTCstack-Signature"),
        ],
    )
    async def test_what_is_refused(
        self, egress: EgressStage, verb: str, url: str, body: bytes, changes: Any, detail: str
    ) -> None:
        """401 problems in RTCstack's words, whatever part was signed differently."""
        headers = signed(egress, verb, url, body, changes=changes)
        check_problem(await egress.rest("POST", START, b"{}", headers), 401, "unauthorized", detail)
        assert (await egress.rest("GET", "/v1/egress")).reply["total"] == 0

    @pytest.mark.parametrize(("age", "status"), [(299, 201), (-299, 201), (302, 401), (-302, 401)])
    async def test_old_and_early_ones(self, egress: EgressStage, age: int, status: int) -> None:
        answer = await egress.rest("POST", START, None, signed(egress, "POST", START, age=age))
        assert answer.status == status

    async def test_no_credentials_at_all(self, egress: EgressStage) -> None:
        answer = await egress.rest("POST", START, None, {})
        assert (answer.status, answer.reply["type"]) == (401, "https://rtcstack.dev/errors/unauthorized")

    async def test_a_key_goes_before_a_signature(self, egress: EgressStage) -> None:
        """A second credential never mends the first."""
        headers = {"authorization": "Bearer wrong", **signed(egress, "POST", START)}
        assert (await egress.rest("POST", START, None, headers)).status == 401

    async def test_they_open_rtcstacks_routes_only(self, egress: EgressStage) -> None:
        answer = await egress.rest("GET", "/v1/egress", None, signed(egress, "GET", "/v1/egress"))
        assert answer.status == 401

    async def test_not_on_transports_that_sign_otherwise(self, egress: EgressStage) -> None:
        method = egress.surface.method("StartRoomRecording")
        request = method.request_type(room_id="studio")
        url = "/twirp/baxcloud.v1.EgressService/StartRoomRecording"
        headers = {name.lower(): value for name, value in signed(egress, "POST", url).items()}
        assert (await egress.surface.twirp_protobuf(method, request, headers)).code == "unauthenticated"
        assert (await egress.surface.grpc(method, request, headers)).code == "unauthenticated"
