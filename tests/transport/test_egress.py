"""Starting, watching and ending egresses through BaxCloud's calls."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from livekit.protocol import egress as livekit_egress

from server.domain.egress import (
    AudioEncoding,
    Destination,
    EgressStatus,
    Encoding,
    Failing,
    FileOutput,
    FileResult,
    Results,
    Surface,
    VideoEncoding,
)
from server.domain.egress_sources import RoomSource, RoomTracksSource
from server.domain.job import JobStatus
from server.errors import Code, ServiceError
from tests.transport.egress_stage import EgressStage
from tests.transport.surface import OTHER_KEY, OTHER_PROJECT, headers_for

YOUTUBE = "rtmp://a.rtmp.youtube.com/live2/YOUTUBE_KEY"
TWITCH = "rtmp://live.twitch.tv/app/TWITCH_KEY"
FACEBOOK = "rtmps://live-api-s.facebook.com:443/rtmp/FB_KEY"
OTHERS = headers_for(OTHER_KEY, OTHER_PROJECT)


class TestStart:
    async def test_both_of_the_seed(self, egress: EgressStage) -> None:
        """EG-03, EG-05, EG-12, EG-27, EG-28, EG-29, EG-30, EG-31, EG-42, B-43, B-61, GN-18: with a key alone."""
        answer = await egress.start(
            headers_for(project=None),
            roomName="studio",
            mode="both",
            layout="speaker",
            quality="1080p",
            file={"fileType": "MP4"},
            stream={"urls": [YOUTUBE, TWITCH, FACEBOOK]},
        )
        assert answer.status == 201, answer
        made = answer.reply
        assert re.fullmatch(r"EG_[A-Za-z0-9]{12}", made["id"])
        assert re.fullmatch(r"rec_[a-z0-9]+", made["recordingId"])
        assert made["egressId"] == made["id"]
        assert (made["type"], made["mode"], made["layout"], made["quality"]) == (
            "both",
            "both",
            "speaker",
            "1080p",
        )
        assert (made["status"], made["livekitStatus"]) == ("STARTED", "EGRESS_STARTING")
        assert made["file"] == {"fileType": "MP4"}
        assert made["destinations"] == [
            "rtmp://a.rtmp.youtube.com/live2/***",
            "rtmp://live.twitch.tv/app/***",
            "rtmps://live-api-s.facebook.com:443/rtmp/***",
        ]
        assert "fileUrl" not in made
        assert "endedAt" not in made
        assert "KEY" not in answer.raw.decode()

    async def test_one_job_is_submitted_with_it(self, egress: EgressStage) -> None:
        made = (await egress.start(roomName="studio", mode="record")).reply
        stored = await egress.stored(made["id"])
        async with egress.database.read() as tx:
            job = await tx.jobs.get(stored.project_id, stored.job_id)
        assert job is not None
        assert (job.kind, job.status) == ("egress", JobStatus.PENDING)
        assert job.spec["egressId"] == made["id"]

    async def test_the_plan_of_both(self, egress: EgressStage) -> None:
        """B-38, B-41: one file and one stream output from one encode; B-36: the key of the file."""
        made = (
            await egress.start(
                roomName="studio",
                mode="both",
                quality="1080p",
                layout="pip",
                stream={"urls": [YOUTUBE, TWITCH]},
            )
        ).reply
        stored = await egress.stored(made["id"])
        assert stored.surface is Surface.BAXCLOUD
        assert stored.plan.source == RoomSource(layout="pip")
        assert stored.plan.outputs.files == (FileOutput("mp4", f"recordings/{made['recordingId']}.mp4"),)
        assert stored.plan.outputs.streams == "rtmp"
        assert stored.plan.encoding == Encoding(
            VideoEncoding("h264_main", 1920, 1080, 30, 6000, 4.0), AudioEncoding("aac", 128, 44100)
        )
        orders = await egress.orders(made["id"])
        assert [one.url for one in orders.destinations] == [YOUTUBE, TWITCH]
        assert len({one.id for one in orders.destinations}) == 2

    @pytest.mark.parametrize(
        ("quality", "size", "kbps"),
        [
            ("480p", (854, 480), 1500),
            ("720p", (1280, 720), 3000),
            ("1080p", (1920, 1080), 6000),
            ("4k", (3840, 2160), 15000),
        ],
    )
    async def test_qualities(
        self, egress: EgressStage, quality: str, size: tuple[int, int], kbps: int
    ) -> None:
        """EG-19, EG-20, EG-21, EG-22."""
        made = (await egress.start(roomName="studio", mode="record", quality=quality)).reply
        video = (await egress.stored(made["id"])).plan.encoding.video
        assert video is not None
        assert ((video.width, video.height), video.kbps, video.fps) == (size, kbps, 30)

    async def test_what_is_left_out(self, egress: EgressStage) -> None:
        """EG-23, EG-26, B-37: 720p, MP4, layout default."""
        made = (await egress.start(roomName="studio", mode="record")).reply
        assert (made["quality"], made["layout"], made["file"]) == ("720p", "default", {"fileType": "MP4"})
        assert made["destinations"] == []

    @pytest.mark.parametrize("layout", ["grid", "speaker", "pip", "default"])
    async def test_layouts(self, egress: EgressStage, layout: str) -> None:
        """EG-04, EG-18, EG-35."""
        made = (await egress.start(roomName="studio", mode="record", layout=layout)).reply
        shown = (await egress.rest("GET", f"/v1/egress/{made['id']}")).reply
        assert shown["layout"] == layout

    @pytest.mark.parametrize(
        ("given", "container", "encoding"),
        [
            ("mp4", "mp4", Encoding(VideoEncoding("h264_main", 1280, 720, 30, 3000, 4.0), AudioEncoding())),
            (
                "WebM",
                "webm",
                Encoding(VideoEncoding("vp9", 1280, 720, 30, 3000, 4.0), AudioEncoding("opus", 128, 48000)),
            ),
            ("OGG", "ogg", Encoding(None, AudioEncoding("opus", 128, 48000))),
        ],
    )
    async def test_file_types_in_any_case(
        self, egress: EgressStage, given: str, container: str, encoding: Encoding
    ) -> None:
        """EG-07, EG-08, design section 12 on B-37: WebM is encoded as such; OGG is sound only."""
        made = (await egress.start(roomName="studio", mode="record", file={"fileType": given})).reply
        stored = await egress.stored(made["id"])
        assert made["file"] == {"fileType": given.upper()}
        assert stored.plan.outputs.files[0] == FileOutput(
            container, f"recordings/{made['recordingId']}.{container}"
        )
        assert stored.plan.encoding == encoding
        assert stored.plan.source == RoomSource(layout="default", audio_only=encoding.video is None)

    async def test_a_stream_records_nothing(self, egress: EgressStage) -> None:
        """EG-10, EG-11."""
        made = (await egress.start(roomName="studio", mode="stream", stream={"urls": [YOUTUBE]})).reply
        stored = await egress.stored(made["id"])
        assert "recordingId" not in made
        assert "file" not in made
        assert stored.plan.outputs.files == ()
        assert (await egress.rest("GET", "/v1/recordings")).reply["total"] == 0

    async def test_tracks(self, egress: EgressStage) -> None:
        """Every track as it comes, into a folder of the recording."""
        made = (await egress.start(roomName="studio", mode="record", tracks=True)).reply
        stored = await egress.stored(made["id"])
        assert made["tracks"] is True
        assert "file" not in made
        assert stored.plan.source == RoomTracksSource()
        assert stored.plan.outputs.files == (FileOutput("", f"recordings/{made['recordingId']}/"),)
        recording = (await egress.rest("GET", f"/v1/recordings/{made['recordingId']}")).reply
        assert recording["tracks"] is True

    async def test_livekits_surface_can_echo_it(self, egress: EgressStage) -> None:
        """The request is one of LiveKit's, without keys, so livekit.Egress lists it too."""
        for body in (
            {"mode": "both", "stream": {"urls": [YOUTUBE]}},
            {"mode": "record", "file": {"fileType": "OGG"}},
            {"mode": "record", "file": {"fileType": "WEBM"}},
            {"mode": "record", "tracks": True},
        ):
            made = (await egress.start(roomName="studio", quality="480p", **body)).reply
            stored = await egress.stored(made["id"])
            assert stored.request["type"] == "room_composite"
            echo = livekit_egress.RoomCompositeEgressRequest()
            ParseDict(stored.request["body"], echo)
            assert echo.room_name == "studio"
            assert "YOUTUBE_KEY" not in str(stored.request)
            if body["mode"] == "both":
                assert echo.stream_outputs[0].urls == ["rtmp://a.rtmp.youtube.com/live2/{YOU...KEY}"]
                assert (echo.advanced.width, echo.advanced.video_bitrate) == (854, 1500)

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"mode": "record"}, "roomName"),
            ({"roomName": "", "mode": "record"}, "roomName"),
            ({"roomName": "studio"}, "mode"),
            ({"roomName": "studio", "mode": "broadcast"}, "mode"),
            ({"roomName": "studio", "mode": "record", "layout": "mosaic"}, "layout"),
            ({"roomName": "studio", "mode": "record", "quality": "2k"}, "quality"),
            ({"roomName": "studio", "mode": "record", "file": {"fileType": "AVI"}}, "file.fileType"),
            ({"roomName": "studio", "mode": "stream"}, "stream.urls"),
            ({"roomName": "studio", "mode": "both"}, "stream.urls"),
            ({"roomName": "studio", "mode": "both", "stream": {}}, "stream.urls"),
            ({"roomName": "studio", "mode": "stream", "stream": {"urls": []}}, "stream.urls"),
            ({"roomName": "studio", "mode": "stream", "stream": {"urls": YOUTUBE}}, "stream.urls"),
            (
                {
                    "roomName": "studio",
                    "mode": "both",
                    "stream": {"urls": [YOUTUBE]},
                    "file": {"fileType": "OGG"},
                },
                "file.fileType",
            ),
            (
                {"roomName": "studio", "mode": "both", "stream": {"urls": [YOUTUBE]}, "tracks": True},
                "tracks",
            ),
        ],
    )
    async def test_what_is_wrong_is_named(self, egress: EgressStage, body: Any, field: str) -> None:
        """EG-07, EG-13, EG-18, EG-23, EG-24, EG-25."""
        answer = await egress.rest("POST", "/v1/egress/start", body)
        assert answer.status == 400, answer
        assert answer.meta["field"] == field
        assert (await egress.rest("GET", "/v1/egress")).reply["total"] == 0

    @pytest.mark.parametrize(
        "url",
        [
            "http://live.test/app/SECRET",
            "srt://live.test:9999?streamid=SECRET",
            "ftp://live.test/SECRET",
            "twitch://SECRET",
            "rtmp://10.0.0.1:1935/app/SECRET",
            "rtmp://127.0.0.1/app/SECRET",
            "rtmp://[::1]/app/SECRET",
            "rtmp://user:SECRET@live.test/app/key",
            "rtmp://live.test:6379/app/SECRET",
            "rtmp://live.test/SECRET",
        ],
    )
    async def test_destinations_that_are_none(self, egress: EgressStage, url: str) -> None:
        """EG-32, design section 13: only RTMP, nothing private; the refusal holds no key."""
        answer = await egress.start(roomName="studio", mode="stream", stream={"urls": [YOUTUBE, url]})
        assert answer.status == 400, answer
        assert answer.meta["field"] == "stream.urls[1]"
        assert b"SECRET" not in answer.raw

    async def test_a_room_that_is_not_open(self, egress: EgressStage) -> None:
        """EG-24, B-72; another project's room and a name that none can have are the same."""
        egress.open_room("theirs", OTHER_PROJECT)
        for room in ("nowhere", "theirs", "bax:cl_other:theirs"):
            answer = await egress.start(roomName=room, mode="record")
            assert answer.status == 404, answer

    async def test_a_room_that_must_not_be_recorded(self, egress: EgressStage) -> None:
        """B-46: it can still be streamed."""
        await egress.forbid_recording("secret")
        for body in (
            {"mode": "record"},
            {"mode": "both", "stream": {"urls": [YOUTUBE]}},
        ):
            answer = await egress.start(roomName="secret", **body)
            assert (answer.status, answer.code) == (409, "RECORDING_DISABLED")
        recording = await egress.rest("POST", "/v1/recordings/start", {"roomName": "secret"})
        assert (recording.status, recording.code) == (409, "RECORDING_DISABLED")
        streamed = await egress.start(roomName="secret", mode="stream", stream={"urls": [YOUTUBE]})
        assert streamed.status == 201

    async def test_a_repeated_call_starts_one(self, egress: EgressStage) -> None:
        """Also when the answer to the first call was lost with the process that gave it."""
        body = {"roomName": "studio", "mode": "record"}
        headers = headers_for(**{"idempotency-key": "k1"})
        first = await egress.rest("POST", "/v1/egress/start", body, headers)
        async with egress.database.begin() as tx:
            await tx.run_sync(lambda c: c.exec_driver_sql("DELETE FROM idempotency_keys"))
            await tx.commit()
        again = await egress.rest("POST", "/v1/egress/start", body, headers)
        assert again.reply["id"] == first.reply["id"]
        assert again.reply["recordingId"] == first.reply["recordingId"]
        async with egress.database.begin() as tx:
            await tx.run_sync(lambda c: c.exec_driver_sql("DELETE FROM idempotency_keys"))
            await tx.commit()
        other = await egress.rest("POST", "/v1/egress/start", body | {"quality": "480p"}, headers)
        assert (other.status, other.code) == (409, "IDEMPOTENCY_CONFLICT")
        egress.clock.advance(24 * 3600 + 1)
        async with egress.database.begin() as tx:
            await tx.run_sync(lambda c: c.exec_driver_sql("DELETE FROM idempotency_keys"))
            await tx.commit()
        tomorrow = await egress.rest("POST", "/v1/egress/start", body, headers)
        assert tomorrow.reply["id"] != first.reply["id"]

    async def test_it_is_the_same_on_every_transport(self, egress: EgressStage) -> None:
        method = egress.surface.method("StartEgress")
        request = method.request_type(room_name="studio", mode="record")
        surface = egress.surface
        for outcome in (
            await surface.grpc(method, request, headers_for()),
            await surface.twirp_protobuf(method, request, headers_for()),
            await surface.twirp_json(method, {"room_name": "studio", "mode": "record"}, headers_for()),
        ):
            assert outcome.reply["roomName"] == "studio"
            assert outcome.reply["status"] == "STARTED"


class TestStop:
    @pytest.mark.parametrize("body", [{"mode": "record"}, {"mode": "stream", "stream": {"urls": [YOUTUBE]}}])
    async def test_it_answers_when_the_file_is_in_place(self, egress: EgressStage, body: Any) -> None:
        """EG-33, EG-34, EG-43, B-10."""
        made = (await egress.start(roomName="studio", **body)).reply
        await egress.save(made["id"], status=EgressStatus.ACTIVE)
        egress.complete_when_told(made["id"])
        stopped = await egress.rest("POST", f"/v1/egress/{made['id']}/stop")
        assert (stopped.status, stopped.reply["status"]) == (200, "COMPLETED")
        assert (await egress.orders(made["id"])).end_reason == "StopEgress API"

    async def test_what_no_worker_has_taken_ends_at_once(self, egress: EgressStage) -> None:
        """EG-34, design section 13: FAILED with EGRESS_ABORTED, however long no worker comes."""
        made = (await egress.start(roomName="studio", mode="record")).reply
        stopped = await egress.rest("POST", f"/v1/egress/{made['id']}/stop")
        assert (stopped.status, stopped.reply["status"]) == (200, "FAILED")
        assert (stopped.reply["livekitStatus"], stopped.reply["errorCode"]) == (
            "EGRESS_ABORTED",
            "EGRESS_ABORTED",
        )
        recording = (await egress.rest("GET", f"/v1/recordings/{made['recordingId']}")).reply
        assert (recording["status"], recording["errorCode"]) == ("FAILED", "EGRESS_ABORTED")

    async def test_who_does_not_wait_is_told_what_is(
        self, egress: EgressStage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """B-10: the wait ends before the caller gives up."""
        # Half a second is short for an answer of a machine that stalls.
        monkeypatch.setattr("server.services.egresses._ANSWER_SEC", 3.0)
        made = (await egress.start(roomName="studio", mode="record")).reply
        await egress.save(made["id"], status=EgressStatus.ACTIVE)
        stopped = await egress.rest(
            "POST", f"/v1/egress/{made['id']}/stop", None, headers_for(**{"x-twirp-timeout-ms": "4000"})
        )
        assert stopped.status == 200, stopped
        assert (stopped.reply["status"], stopped.reply["livekitStatus"]) == ("STARTED", "EGRESS_ENDING")

    async def test_what_has_ended_stays_as_it_was(self, egress: EgressStage) -> None:
        """B-11."""
        made = (await egress.start(roomName="studio", mode="record")).reply
        await egress.save(
            made["id"], status=EgressStatus.FAILED, failing=Failing("EGRESS_FAILED", "it broke", 500)
        )
        stopped = await egress.rest("POST", f"/v1/egress/{made['id']}/stop")
        assert (stopped.status, stopped.reply["status"]) == (200, "FAILED")
        assert (await egress.orders(made["id"])).end_reason == ""

    async def test_unknown_and_foreign_ones(self, egress: EgressStage) -> None:
        """EG-43, GN-07."""
        made = (await egress.start(roomName="studio", mode="record")).reply
        for egress_id, headers in (("EG_nobody", None), (made["id"], OTHERS)):
            for verb, path in (("POST", "/stop"), ("POST", "/pause"), ("GET", ""), ("DELETE", "")):
                answer = await egress.rest(verb, f"/v1/egress/{egress_id}{path}", None, headers)
                assert answer.status == 404, answer


class TestPause:
    async def test_pausing_and_going_on(self, egress: EgressStage) -> None:
        made = (await egress.start(roomName="studio", mode="record")).reply
        path = f"/v1/egress/{made['id']}"
        assert (await egress.rest("POST", f"{path}/pause")).reply["paused"] is True
        assert (await egress.orders(made["id"])).paused == "cut"
        assert (await egress.rest("POST", f"{path}/pause", {"mode": "card"})).reply["paused"] is True
        assert (await egress.orders(made["id"])).paused == "card"
        assert (await egress.rest("POST", f"{path}/resume")).reply["paused"] is False
        assert (await egress.orders(made["id"])).paused == ""
        assert (await egress.rest("POST", f"{path}/resume")).status == 200
        assert (await egress.rest("POST", f"{path}/pause", {"mode": "hold"})).meta["field"] == "mode"

    async def test_what_ends_cannot_be_paused(self, egress: EgressStage) -> None:
        made = (await egress.start(roomName="studio", mode="record")).reply
        await egress.save(made["id"], status=EgressStatus.ENDING)
        answer = await egress.rest("POST", f"/v1/egress/{made['id']}/pause")
        assert (answer.status, answer.message) == (409, "egress with status EGRESS_ENDING cannot be paused")


class TestShow:
    async def test_a_finished_one(self, egress: EgressStage) -> None:
        """EG-36, RC-17, E.5: integers, rounded half up."""
        made = (await egress.start(roomName="studio", mode="record")).reply
        await egress.complete(made["id"], b"12345")
        shown = (await egress.rest("GET", f"/v1/egress/{made['id']}")).reply
        assert (shown["status"], shown["fileSize"], shown["durationSec"]) == ("COMPLETED", 5, 62)
        assert shown["fileUrl"].endswith(f"/recordings/{made['recordingId']}.mp4")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", shown["endedAt"])

    async def test_a_failed_one(self, egress: EgressStage) -> None:
        """EG-48."""
        made = (await egress.start(roomName="studio", mode="stream", stream={"urls": [YOUTUBE]})).reply
        failing = Failing("RTMP_CONNECTION_REFUSED", "RTMP connection refused by destination", 503)
        await egress.save(made["id"], status=EgressStatus.FAILED, failing=failing)
        shown = (await egress.rest("GET", f"/v1/egress/{made['id']}")).reply
        assert (shown["status"], shown["errorCode"]) == ("FAILED", "RTMP_CONNECTION_REFUSED")
        assert shown["errorMessage"] == "RTMP connection refused by destination"

    @pytest.mark.parametrize(
        ("status", "files", "shown"),
        [
            (EgressStatus.STARTING, False, "STARTED"),
            (EgressStatus.ACTIVE, False, "STARTED"),
            (EgressStatus.ENDING, False, "STARTED"),
            (EgressStatus.COMPLETE, True, "COMPLETED"),
            (EgressStatus.FAILED, False, "FAILED"),
            (EgressStatus.ABORTED, False, "FAILED"),
            (EgressStatus.LIMIT_REACHED, True, "COMPLETED"),
            (EgressStatus.LIMIT_REACHED, False, "FAILED"),
        ],
    )
    async def test_states(self, egress: EgressStage, status: EgressStatus, files: bool, shown: str) -> None:
        """E.1, EG-40: three words, also to filter by."""
        made = (await egress.start(roomName="studio", mode="record")).reply
        results = Results(files=(FileResult("a.mp4"),) if files else ())
        await egress.save(made["id"], status=status, results=results)
        reply = (await egress.rest("GET", f"/v1/egress/{made['id']}")).reply
        assert (reply["status"], reply["livekitStatus"]) == (shown, status.value)
        listed = await egress.rest("GET", f"/v1/egress?status={shown}")
        assert [one["id"] for one in listed.reply["items"]] == [made["id"]]
        others = {"STARTED", "COMPLETED", "FAILED"} - {shown}
        for other in others:
            assert (await egress.rest("GET", f"/v1/egress?status={other}")).reply["items"] == []


class TestList:
    async def test_filters_and_pages(self, egress: EgressStage) -> None:
        """EG-37, EG-38, EG-39, EG-41, EG-44."""
        egress.open_room("hall")
        made = []
        for room, body in (
            ("studio", {"mode": "record"}),
            ("studio", {"mode": "stream", "stream": {"urls": [YOUTUBE]}}),
            ("hall", {"mode": "both", "stream": {"urls": [YOUTUBE]}}),
        ):
            egress.clock.advance(1)
            made.append((await egress.start(roomName=room, **body)).reply["id"])
        everything = (await egress.rest("GET", "/v1/egress")).reply
        assert [one["id"] for one in everything["items"]] == made[::-1]
        assert [one["type"] for one in everything["items"]] == ["both", "stream", "record"]
        assert {key: everything[key] for key in ("total", "page", "limit")} == {
            "total": 3,
            "page": 1,
            "limit": 20,
        }
        first = (await egress.rest("GET", "/v1/egress?roomName=studio&status=started&page=1&limit=1")).reply
        second = (await egress.rest("GET", "/v1/egress?roomName=studio&status=STARTED&page=2&limit=1")).reply
        assert [first["items"][0]["id"], second["items"][0]["id"]] == [made[1], made[0]]
        assert (await egress.rest("GET", "/v1/egress", None, OTHERS)).reply["total"] == 0


class TestDelete:
    async def test_it_ends_and_is_gone_but_its_recording_stays(self, egress: EgressStage) -> None:
        """EG-46, B-83."""
        made = (await egress.start(roomName="studio", mode="record")).reply
        answer = await egress.rest("DELETE", f"/v1/egress/{made['id']}")
        assert (answer.status, answer.raw) == (204, b"")
        assert (await egress.orders(made["id"])).end_reason
        assert (await egress.rest("GET", f"/v1/egress/{made['id']}")).status == 404
        assert (await egress.rest("GET", "/v1/egress")).reply["items"] == []
        assert (await egress.rest("DELETE", f"/v1/egress/{made['id']}")).status == 404
        await egress.complete(made["id"], b"kept")
        kept = await egress.rest("GET", f"/v1/recordings/{made['recordingId']}")
        assert (kept.status, kept.reply["status"]) == (200, "COMPLETED")
        link = await egress.rest("GET", f"/v1/recordings/{made['recordingId']}/download-url")
        assert link.status == 200


class TestSteering:
    """What livekit.Egress does to egresses of any surface."""

    async def test_a_new_layout(self, egress: EgressStage) -> None:
        made = (await egress.start(roomName="studio", mode="record", layout="grid")).reply
        before = await egress.stored(made["id"])
        await egress.control.update_layout(before.project_id, made["id"], "speaker-light")
        assert (await egress.orders(made["id"])).layout == "speaker-light"
        assert (await egress.rest("GET", f"/v1/egress/{made['id']}")).reply["layout"] == "speaker-light"

    async def test_streams_come_and_go(self, egress: EgressStage) -> None:
        """Adds before removals; what cannot be done is said and the rest is done."""
        made = (await egress.start(roomName="studio", mode="stream", stream={"urls": [YOUTUBE]})).reply
        project = (await egress.stored(made["id"])).project_id
        after = await egress.control.update_streams(
            project, made["id"], add=[Destination("d2", TWITCH), Destination("d3", TWITCH)], remove=[YOUTUBE]
        )
        assert [one.url for one in (await egress.orders(made["id"])).destinations] == [TWITCH]
        assert [one.shown_url for one in after.results.streams] == [
            "rtmp://a.rtmp.youtube.com/live2/***",
            "rtmp://live.twitch.tv/app/***",
        ]
        with pytest.raises(ServiceError) as refused:
            await egress.control.update_streams(
                project, made["id"], add=[Destination("d4", FACEBOOK)], remove=[YOUTUBE, "d2"]
            )
        assert refused.value.code is Code.NOT_FOUND
        assert refused.value.message == "stream rtmp://a.rtmp.youtube.com/live2/{YOU...KEY} not found"
        assert [one.url for one in (await egress.orders(made["id"])).destinations] == [FACEBOOK]

    async def test_orders_of_many_callers_add_up(self, egress: EgressStage) -> None:
        made = (await egress.start(roomName="studio", mode="stream", stream={"urls": [YOUTUBE]})).reply
        project = (await egress.stored(made["id"])).project_id
        await asyncio.gather(
            *(
                egress.control.update_streams(
                    project, made["id"], add=[Destination(f"d{n}", f"rtmp://live.test/app/{n}")]
                )
                for n in range(10)
            )
        )
        orders = await egress.orders(made["id"])
        assert (len(orders.destinations), orders.version) == (11, 10)
