"""Captures and their deliveries on both databases, with recorders that do what a script says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import jwt
import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import (
    Destination,
    Egress,
    EgressStatus,
    FileOutput,
    ImagesOutput,
    Outputs,
    SegmentsOutput,
    StreamStatus,
    Surface,
)
from server.domain.egress_sources import RoomTracksSource
from server.domain.job import JobStatus
from server.egress.handler import BROKEN_ATTEMPTS
from server.egress.take import TakeLimits
from server.ports.recorder import (
    Active,
    Broke,
    Ended,
    Finish,
    ImageWritten,
    Joined,
    Measured,
    SegmentWritten,
    StreamReport,
    TrackSeen,
)
from tests.conftest import Eventually
from tests.contract.egress_stage import ROOM, EgressStage, ScriptedRecorder, at

YOUTUBE = Destination("dst_1", "rtmp://a.rtmp.youtube.com/live2/abcd-efgh")
TWITCH = Destination("dst_2", "rtmp://live.twitch.tv/app/secret_key")
REFUSED = ("RTMP connection refused by destination", "RTMP_CONNECTION_REFUSED")
FILE = "recordings/rec_1.mp4"
MP4 = Outputs(files=(FileOutput("mp4", FILE),))
BOTH = replace(MP4, streams="rtmp")
STREAM = Outputs(streams="rtmp")
HLS = Outputs(segments=(SegmentsOutput("live/seg", "index.m3u8", "live.m3u8"),))


@pytest.fixture
async def stage(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[EgressStage]:
    stage = await EgressStage(database, tmp_path / "data", eventually).open()
    yield stage
    await stage.close()


def manifest_of(stage: EgressStage, egress: Egress) -> dict[str, object]:
    found: dict[str, object] = json.loads(stage.objects(egress)["recordings/rec_1.manifest.json"])
    return found


class TestCourse:
    async def test_a_recording_from_start_to_its_file(self, stage: EgressStage) -> None:
        """WH-25 … WH-30, WH-37 … WH-43, RT-22 … RT-28, E.1: started once, completed with the file in place."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(12.4, at=at(0))
        assert (await stage.becomes(egress, EgressStatus.ACTIVE)).active_at == at(0)
        await stage.stop(egress)
        await claim.ends()
        ending = await stage.egress(egress)
        assert (ending.status, ending.details) == (EgressStatus.ENDING, "End reason: StopEgress API")
        await stage.deliver()

        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        (file,) = done.results.files
        assert (file.filename, file.started_at, file.duration) == (FILE, at(0), 12_400_000_000)
        assert (file.ended_at, file.size) == (at(12.4), 5)
        assert (done.failing, done.details) == (None, "End reason: StopEgress API")
        assert done.ended_at >= done.started_at
        assert stage.objects(egress)[FILE] == b"media"
        assert (await stage.job(egress.job_id)).status is JobStatus.COMPLETED
        assert not (stage.files / "egress" / egress.id).exists()

        recording = await stage.recording(egress)
        assert (recording.status, recording.key, recording.duration_sec) == ("COMPLETED", FILE, 12)
        events = await stage.events()
        assert [name for name, _ in events] == [
            "recording.started",
            "recording_started",
            "recording.completed",
            "egress_ended",
            "recording_finished",
            "egress.ended",
        ]
        told = dict(events)
        assert told["recording.started"] == {
            "recordingId": recording.id,
            "egressId": egress.id,
            "roomName": ROOM,
            "type": "record",
            "quality": "720p",
            "layout": "speaker",
        }
        assert told["recording.completed"] == {
            "recordingId": recording.id,
            "egressId": egress.id,
            "roomName": ROOM,
            "status": "COMPLETED",
            "durationSec": 12,
            "fileUrl": recording.file_url,
            "fileSize": 5,
        }
        assert told["egress_ended"] == {
            "event": "egress_ended",
            "egressId": egress.id,
            "roomId": ROOM,
            "file": FILE,
            "duration": 12,
            "size": 5,
        }

    async def test_the_recorder_gets_a_hidden_recorders_token(self, stage: EgressStage) -> None:
        """Design section 7: the identity is the egress, and nothing can be done with it but receive."""
        egress = await stage.start()
        await stage.claim(egress)
        plan = (await stage.recorders.number(0)).plan
        assert (plan.url, plan.container, plan.layout) == ("ws://127.0.0.1:7880", "mp4", "speaker")
        claims = jwt.decode(plan.token, "s" * 32, algorithms=["HS256"])
        assert (claims["sub"], claims["kind"]) == (egress.id, "egress")
        assert claims["video"] == {
            "roomJoin": True,
            "room": ROOM,
            "canSubscribe": True,
            "canPublish": False,
            "canPublishData": False,
            "hidden": True,
            "recorder": True,
        }

    async def test_stopped_before_any_media_it_is_aborted(self, stage: EgressStage) -> None:
        """Section 2.1, E.1: ABORTED with LiveKit's words; FAILED with EGRESS_ABORTED for BaxCloud."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        await stage.recorders.number(0)
        await stage.stop(egress)
        await claim.ends()

        done = await stage.becomes(egress, EgressStatus.ABORTED)
        assert done.failing is not None
        assert (done.failing.message, done.failing.http_code) == (
            "Stop called before pipeline could start",
            412,
        )
        assert (await stage.recording(egress)).error_code == "EGRESS_ABORTED"
        name, data = (await stage.events())[2]
        assert (name, data["status"], data["errorCode"]) == ("recording.failed", "FAILED", "EGRESS_ABORTED")
        assert "egress_ended" not in await stage.names()

    async def test_stopped_before_a_worker_takes_it_no_recorder_starts(self, stage: EgressStage) -> None:
        egress = await stage.start()
        await stage.stop(egress)
        await (await stage.claim(egress)).ends()
        await stage.becomes(egress, EgressStatus.ABORTED)
        assert stage.recorders.started == []

    @pytest.mark.parametrize(
        ("reason", "status", "details"),
        [
            ("source_closed", EgressStatus.COMPLETE, "End reason: Source closed"),
            ("limit", EgressStatus.LIMIT_REACHED, "End reason: Session limit reached"),
        ],
    )
    async def test_other_ends(
        self, stage: EgressStage, reason: str, status: EgressStatus, details: str
    ) -> None:
        """Section 2.1: the room closed, a limit was reached; both keep what there is."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(3, at=at(0))
        recorder.says(Ended(reason, ended_at=at(3)))
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, status)
        assert done.details == details
        recording = await stage.recording(egress)
        assert recording.status == "COMPLETED"
        assert recording.error_code == ("LIMIT_REACHED" if status is EgressStatus.LIMIT_REACHED else None)

    async def test_a_recorder_that_cannot_go_on_fails_it_but_keeps_what_there_is(
        self, stage: EgressStage
    ) -> None:
        egress = await stage.start()
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(3, at=at(0))
        recorder.says(Broke("EGRESS_FAILED", "the page crashed", 500))
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert (done.details, len(done.results.files)) == ("End reason: Failure", 1)
        recording = await stage.recording(egress)
        assert (recording.status, recording.error_message, recording.key) == (
            "FAILED",
            "the page crashed",
            FILE,
        )

    async def test_a_disk_that_fills_up_ends_it_cleanly(self, stage: EgressStage) -> None:
        stage.studio = replace(
            stage.studio, limits=TakeLimits(poll_sec=0.05, look_sec=0.01, min_free_bytes=1 << 62)
        )
        stage.rework()
        egress = await stage.start()
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(3, at=at(0))
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.LIMIT_REACHED)
        assert (done.details, len(done.results.files)) == ("End reason: Disk nearly full", 1)


class TestOrders:
    async def test_orders_reach_a_running_recorder(self, stage: EgressStage) -> None:
        """EG: a new layout, a pause and destinations, at once and also without a notice."""
        egress = await stage.start(BOTH, type_="both", destinations=[YOUTUBE])
        await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(1, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await stage.control.update_layout(egress.project_id, egress.id, "grid")
        await stage.eventually(lambda: recorder.orders()[-1:] and recorder.orders()[-1].layout == "grid")
        stage.board.notice = lambda egress_id: None  # type: ignore[method-assign]
        await stage.control.pause(egress.project_id, egress.id, "card")
        await stage.eventually(lambda: recorder.orders()[-1].paused == "card")
        await stage.control.update_streams(egress.project_id, egress.id, add=[TWITCH])
        await stage.eventually(lambda: recorder.orders()[-1].destinations == (YOUTUBE, TWITCH))
        name, data = (await stage.events())[-1]
        assert name == "stream.updated"
        assert data["destinations"] == [
            "rtmp://a.rtmp.youtube.com/live2/***",
            "rtmp://live.twitch.tv/app/***",
        ]

    async def test_a_new_recorder_knows_the_newest_orders(self, stage: EgressStage) -> None:
        """Destinations that failed for good are not tried again by it."""
        egress = await stage.start(BOTH, type_="both", destinations=[YOUTUBE, TWITCH])
        await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(1, at=at(0))
        recorder.says(StreamReport("dst_1", "failed", at(1), *REFUSED))
        await stage.eventually(lambda: _stream_is(stage, egress, 0, StreamStatus.FAILED))
        await stage.control.update_layout(egress.project_id, egress.id, "pip")
        recorder.dies()
        plan = (await stage.recorders.number(1)).plan
        assert (plan.part, plan.layout, plan.destinations) == (1, "pip", (TWITCH,))

    async def test_a_recorder_that_does_not_end_is_killed(self, stage: EgressStage) -> None:
        stage.recorders.stubborn = True
        stage.studio = replace(stage.studio, limits=replace(stage.limits, finish_sec=0.1))
        stage.rework()
        egress = await stage.start()
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(3, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await stage.stop(egress)
        await claim.ends()
        assert recorder.killed
        await stage.deliver()
        await stage.becomes(egress, EgressStatus.COMPLETE)


async def _stream_is(stage: EgressStage, egress: Egress, index: int, status: StreamStatus) -> bool:
    return (await stage.egress(egress)).results.streams[index].status is status


class TestStreams:
    async def test_one_failed_destination_is_only_an_update(self, stage: EgressStage) -> None:
        """B-85, design 13: stream.failed only when all have failed, and then the file beside it completes (B-45)."""
        egress = await stage.start(BOTH, type_="both", destinations=[YOUTUBE, TWITCH])
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(5, at=at(0))
        recorder.says(
            StreamReport("dst_1", "active", at(0.5)),
            StreamReport("dst_2", "failed", at(1), *REFUSED),
        )
        await stage.eventually(lambda: _stream_is(stage, egress, 1, StreamStatus.FAILED))
        assert "stream.failed" not in await stage.names()
        recorder.says(StreamReport("dst_1", "failed", at(2), "no answer", "RTMP_TIMEOUT"))
        await stage.eventually(lambda: _told(stage, "stream.failed"))
        assert (await stage.egress(egress)).status is EgressStatus.ACTIVE
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()

        await stage.becomes(egress, EgressStatus.COMPLETE)
        names = await stage.names()
        assert names.count("stream.updated") == 3
        assert names.count("stream.failed") == 1
        assert "stream.completed" not in names
        assert "recording.completed" in names

    async def test_when_all_fail_and_there_is_nothing_else_it_fails(self, stage: EgressStage) -> None:
        """EG-48, WH-44 … WH-46, section 2.4: the destination's own code, 503."""
        egress = await stage.start(STREAM, type_="stream", destinations=[YOUTUBE])
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.says(
            Joined("RM_first"),
            Active(at(0)),
            StreamReport("dst_1", "failed", at(1), *REFUSED),
            Ended("streams_failed", ended_at=at(1)),
        )
        await claim.ends()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert (done.failing.code, done.failing.message, done.failing.http_code) == (*REFUSED[::-1], 503)
        events = await stage.events()
        assert [name for name, _ in events] == [
            "stream.started",
            "stream.updated",
            "stream.failed",
            "egress.ended",
        ]
        assert events[0][1]["destinations"] == ["rtmp://a.rtmp.youtube.com/live2/***"]
        failed = events[2][1]
        assert (failed["status"], failed["errorMessage"], failed["errorCode"]) == ("FAILED", *REFUSED)
        assert "abcd-efgh" not in json.dumps(events)

    async def test_streams_end_with_their_egress(self, stage: EgressStage) -> None:
        """WH-07: nothing is delivered, the end is the job's own."""
        egress = await stage.start(STREAM, type_="stream", destinations=[YOUTUBE])
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.says(Active(at(0)), StreamReport("dst_1", "active", at(0.2)))
        await stage.eventually(lambda: _told(stage, "stream.updated"))
        await stage.stop(egress)
        await claim.ends()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert [stream.status for stream in done.results.streams] == [StreamStatus.FINISHED]
        assert (await stage.names())[-2:] == ["stream.completed", "egress.ended"]


async def _told(stage: EgressStage, name: str) -> bool:
    return name in await stage.names()


class TestLosses:
    async def test_a_recorder_that_dies_is_followed_by_the_next(self, stage: EgressStage) -> None:
        """Issue section 5: under the same id, the gap in the manifest."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        first = await stage.recorders.number(0)
        first.records(4, at=at(0), content="one")
        first.says(TrackSeen("TR_1", "alice", "video", "vp8", 0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        first.dies()
        second = await stage.recorders.number(1)
        second.records(6, at=at(5.5), content="two")
        second.says(TrackSeen("TR_1", "alice", "video", "vp8", 100, 5000))
        await stage.eventually(lambda: _measured(stage, egress, 10_000))
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()

        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert stage.objects(egress)[FILE] == b"one+two"
        assert done.results.files[0].duration == 10_000_000_000
        assert done.results.files[0].ended_at == at(11.5)
        manifest = manifest_of(stage, egress)
        assert manifest["gaps"] == [{"startMs": 4000, "durationMs": 1500, "reason": "RECORDER_LOST"}]
        assert manifest["durationMs"] == 10_000
        assert manifest["framesComposed"] == 300
        assert manifest["tracks"] == [
            _track_row("TR_1", 0, 4000),
            _track_row("TR_1", 4100, 9000),
        ]
        assert (await stage.recording(egress)).manifest == manifest
        assert (await stage.names()).count("recording.started") == 1

    async def test_a_worker_that_dies_is_followed_by_the_next(self, stage: EgressStage) -> None:
        """kill -9 of the worker: another one goes on with the next part; started is told once."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        first = await stage.recorders.number(0)
        first.records(4, at=at(0), content="one")
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await claim.dies()
        claim = await stage.claim(egress)
        second = await stage.recorders.number(1)
        assert second.plan.part == 1
        second.records(6, at=at(7), content="two")
        await stage.eventually(lambda: _measured(stage, egress, 10_000))
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()
        await stage.becomes(egress, EgressStatus.COMPLETE)
        assert stage.objects(egress)[FILE] == b"one+two"
        gaps = manifest_of(stage, egress)["gaps"]
        assert gaps == [{"startMs": 4000, "durationMs": 3000, "reason": "WORKER_LOST"}]
        assert (await stage.names()).count("recording.started") == 1

    @pytest.mark.parametrize("sids", [{}, {ROOM: "RM_second"}], ids=["closed", "another session of it"])
    async def test_is_the_room_over_it_is_finished_from_disk(
        self, stage: EgressStage, sids: dict[str, str]
    ) -> None:
        """Issue section 5: nobody joins a room that is not there, which would only open it again."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        (await stage.recorders.number(0)).records(4, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await claim.dies()
        stage.rooms.sids = sids
        await (await stage.claim(egress)).ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert (done.details, done.results.files[0].duration) == (
            "End reason: Source closed",
            4_000_000_000,
        )
        assert len(stage.recorders.started) == 1

    async def test_stopped_while_nobody_owned_it(self, stage: EgressStage) -> None:
        egress = await stage.start()
        claim = await stage.claim(egress)
        (await stage.recorders.number(0)).records(4, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await claim.dies()
        await stage.stop(egress)
        await (await stage.claim(egress)).ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert done.details == "End reason: StopEgress API"
        assert len(stage.recorders.started) == 1

    async def test_a_worker_that_died_after_the_last_report_needs_no_new_recorder(
        self, stage: EgressStage
    ) -> None:
        egress = await stage.start()
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(4, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        journal = stage.files / "egress" / egress.id / "journal.jsonl"
        await claim.dies()
        with journal.open("a") as file:
            line = {"kind": "report", "part": 0}
            end = {"kind": "ended", "reason": "source_closed", "ended_at": at(4)}
            # A line that a power cut tore is not read, nor does it spoil the next.
            file.write(json.dumps({**line, "report": end}) + "\n" + '{"kind": "repo')
        await (await stage.claim(egress)).ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert done.details == "End reason: Source closed"
        assert len(stage.recorders.started) == 1

    async def test_a_draining_worker_hands_it_over(self, stage: EgressStage) -> None:
        """SIGTERM: the part is whole, the attempt costs nothing, the next worker goes on."""
        egress = await stage.start(BOTH, type_="both", destinations=[YOUTUBE])
        claim = await stage.claim(egress)
        first = await stage.recorders.number(0)
        first.records(4, at=at(0), content="one")
        first.says(StreamReport("dst_1", "active", at(0.1)))
        await stage.eventually(lambda: _told(stage, "stream.updated"))
        claim.run.stop.set()
        await claim.ends()
        assert isinstance(first.told[-1], Finish)
        job = await stage.job(egress.job_id)
        assert (job.status, job.attempt) == (JobStatus.PENDING, 0)
        assert (await stage.egress(egress)).status is EgressStatus.ACTIVE

        claim = await stage.claim(egress)
        second = await stage.recorders.number(1)
        second.records(6, at=at(5), content="two")
        await stage.eventually(lambda: _measured(stage, egress, 10_000))
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()
        await stage.becomes(egress, EgressStatus.COMPLETE)
        assert stage.objects(egress)[FILE] == b"one+two"

    async def test_a_recorder_that_never_works_ends_it(self, stage: EgressStage) -> None:
        egress = await stage.start()
        stage.recorders.broken = True
        await (await stage.claim(egress)).ends()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert (done.failing.code, done.failing.http_code) == ("EGRESS_FAILED", 500)

    async def test_a_recorder_that_dies_all_the_time_ends_it_with_what_there_is(
        self, stage: EgressStage
    ) -> None:
        egress = await stage.start()
        claim = await stage.claim(egress)
        for number in range(stage.studio.restarts.frequent + 1):
            recorder = await stage.recorders.number(number)
            recorder.records(1, at=at(2 * number), content=str(number))
            recorder.dies()
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert len(done.results.files) == 1
        assert (await stage.recording(egress)).key == FILE

    async def test_a_connection_that_is_lost_is_made_again(self, stage: EgressStage) -> None:
        """LiveKit was restarted: the same people are in the room again under a new sid."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        first = await stage.recorders.number(0)
        first.records(4, at=at(0), content="one")
        stage.rooms.away = True
        first.says(Ended("connection_lost", ended_at=at(4)))
        stage.rooms.sids = {ROOM: "RM_second"}
        stage.rooms.away = False
        second = await stage.recorders.number(1)
        second.records(6, at=at(9), content="two")
        await stage.eventually(lambda: _measured(stage, egress, 10_000))
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()
        await stage.becomes(egress, EgressStatus.COMPLETE)
        gaps = manifest_of(stage, egress)["gaps"]
        assert gaps == [{"startMs": 4000, "durationMs": 5000, "reason": "CONNECTION_LOST"}]

    async def test_a_livekit_that_stays_away_ends_it(self, stage: EgressStage) -> None:
        """Section 2.5: the file is finished and delivered, the egress FAILED."""
        stage.studio = replace(
            stage.studio, restarts=replace(stage.studio.restarts, livekit_patience_sec=0.1)
        )
        stage.rework()
        egress = await stage.start()
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        recorder.records(4, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        stage.rooms.away = True
        recorder.says(Ended("connection_lost", ended_at=at(4)))
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert (done.failing.message, done.failing.http_code) == (
            "recording ended early: connection to room failed",
            503,
        )
        assert len(done.results.files) == 1

    async def test_a_recorder_that_falls_silent_is_replaced(self, stage: EgressStage) -> None:
        stage.studio = replace(stage.studio, limits=replace(stage.limits, silence_sec=0.2))
        stage.rework()
        egress = await stage.start()
        await stage.claim(egress)
        first = await stage.recorders.number(0)
        first.records(4, at=at(0))
        await stage.recorders.number(1)
        assert first.killed

    async def test_a_database_that_is_away_costs_no_media(self, stage: EgressStage) -> None:
        """Reports are taken in and journaled whatever else happens; the rows follow."""
        egress = await stage.start(HLS)
        await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        journal = stage.files / "egress" / egress.id / "journal.jsonl"
        async with stage.database.begin() as tx:
            await tx.egresses.get(None, egress.id, lock=True)
            recorder.says(Joined("RM_first"), Active(at(0)))
            recorder.says(*(_segment(recorder, number, 4 * number) for number in range(20)))
            await stage.eventually(lambda: journal.read_text().count('"segment"') == 20)
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await stage.eventually(lambda: "live/seg_00019.ts" in stage.objects(egress))

    async def test_a_capture_that_breaks_again_and_again_fails(self, stage: EgressStage) -> None:
        """A defect of ours must not leave it STARTING for ever."""
        egress = await stage.start()

        async def broken(livekit_room: object) -> object:
            raise KeyError("a defect")

        stage.studio.door.admit = broken  # type: ignore[method-assign,assignment]
        for _ in range(BROKEN_ATTEMPTS):
            await (await stage.claim(egress)).ends()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert done.failing.code == "INTERNAL"


def _track_row(sid: str, start: int, end: int) -> dict[str, object]:
    return {
        "sid": sid,
        "identity": "alice",
        "kind": "video",
        "codec": "vp8",
        "startMs": start,
        "endMs": end,
    }


async def _measured(stage: EgressStage, egress: Egress, duration_ms: int) -> bool:
    """What a running egress shows of itself, over all its parts."""
    job = await stage.job(egress.job_id)
    found: int = job.result.get("measured", {}).get("durationMs", 0)
    return found == duration_ms


def _segment(recorder: ScriptedRecorder, number: int, started: float) -> SegmentWritten:
    name = f"seg-{recorder.plan.part:03d}-{number:05d}.ts"
    (recorder.folder / name).write_text(f"segment {recorder.plan.part}.{number}")
    return SegmentWritten(name, number, 4.0, at(started))


class TestSegmentsAndImages:
    async def test_segments_are_playable_while_it_runs_and_after(self, stage: EgressStage) -> None:
        """Section 3.3: each playlist only after its segments; a new part is a discontinuity; ENDLIST at the end."""
        egress = await stage.start(HLS)
        claim = await stage.claim(egress)
        first = await stage.recorders.number(0)
        assert (first.plan.container, first.plan.segment_sec) == ("", 4)
        first.says(Joined("RM_first"), Active(at(0)), _segment(first, 0, 0), _segment(first, 1, 4))
        await stage.eventually(lambda: b"00001.ts" in stage.objects(egress).get("live/live.m3u8", b""))
        assert stage.objects(egress)["live/seg_00000.ts"] == b"segment 0.0"
        assert b"ENDLIST" not in stage.objects(egress)["live/index.m3u8"]
        assert not (first.folder / "seg-000-00000.ts").exists()
        first.dies()
        second = await stage.recorders.number(1)
        second.says(Joined("RM_first"), Active(at(9)), _segment(second, 0, 9))
        await stage.eventually(lambda: "live/seg_00002.ts" in stage.objects(egress))
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()

        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        objects = stage.objects(egress)
        assert objects["live/index.m3u8"].decode().splitlines()[-5:] == [
            "#EXT-X-DISCONTINUITY",
            "#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:09.000Z",
            "#EXTINF:4.000,",
            "seg_00002.ts",
            "#EXT-X-ENDLIST",
        ]
        (segments,) = done.results.segments
        assert (segments.playlist_name, segments.live_playlist_name) == ("live/index.m3u8", "live/live.m3u8")
        assert (segments.segment_count, segments.duration, segments.size) == (3, 12_000_000_000, 33)
        assert (segments.started_at, segments.ended_at) == (at(0), at(13))
        listed = json.loads(objects["live/index.manifest.json"])["objects"]
        assert {one["key"] for one in listed} == set(objects) - {"live/index.manifest.json"}
        assert (await stage.recording(egress)).file_url == segments.playlist_location

    async def test_a_new_worker_goes_on_where_the_playlist_ends(self, stage: EgressStage) -> None:
        egress = await stage.start(HLS)
        claim = await stage.claim(egress)
        first = await stage.recorders.number(0)
        first.says(Joined("RM_first"), Active(at(0)), _segment(first, 0, 0))
        await stage.eventually(lambda: b"00000.ts" in stage.objects(egress).get("live/index.m3u8", b""))
        await claim.dies()
        await stage.claim(egress)
        second = await stage.recorders.number(1)
        second.says(Active(at(9)), _segment(second, 0, 9))
        await stage.eventually(lambda: b"00001.ts" in stage.objects(egress)["live/index.m3u8"])
        text = stage.objects(egress)["live/index.m3u8"].decode()
        assert [line for line in text.splitlines() if line.endswith(".ts")] == [
            "seg_00000.ts",
            "seg_00001.ts",
        ]

    async def test_a_segment_that_is_gone_costs_only_itself(self, stage: EgressStage) -> None:
        """A power cut may take what was not yet on disk."""
        egress = await stage.start(HLS)
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        gone = _segment(recorder, 1, 4)
        (recorder.folder / gone.file).unlink()
        recorder.says(Joined("RM_first"), Active(at(0)))
        recorder.says(_segment(recorder, 0, 0), gone, _segment(recorder, 2, 8))
        await stage.eventually(lambda: "live/seg_00002.ts" in stage.objects(egress))
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert done.results.segments[0].segment_count == 2
        text = stage.objects(egress)["live/index.m3u8"].decode()
        assert [line for line in text.splitlines() if line.endswith(".ts")] == [
            "seg_00000.ts",
            "seg_00002.ts",
        ]
        assert text.count("#EXT-X-DISCONTINUITY\n") == 1

    async def test_images_go_up_while_it_runs(self, stage: EgressStage) -> None:
        """Section 3.4; the next part goes on counting."""
        egress = await stage.start(Outputs(images=(ImagesOutput("shots/img", 5),)), surface=Surface.LIVEKIT)
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        (recorder.folder / "image-0-000-00000.jpeg").write_text("picture")
        recorder.says(
            Joined("RM_first"),
            Active(at(0)),
            ImageWritten(0, "image-0-000-00000.jpeg", 0, at(1)),
            Measured(1000),
        )
        await stage.eventually(lambda: "shots/img_00000.jpeg" in stage.objects(egress))
        recorder.dies()
        assert (await stage.recorders.number(1)).plan.first_image == 1
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert done.results.images[0].image_count == 1
        assert json.loads(stage.objects(egress)[f"shots/{egress.id}.json"])["images"] == [
            {
                "filename": "shots/img_00000.jpeg",
                "timestamp": "2027-01-15T08:00:01.000000Z",
                "location": done.results.manifest_location.replace(f"{egress.id}.json", "img_00000.jpeg"),
            }
        ]


class TestTracks:
    async def test_every_track_is_delivered_as_it_is(self, stage: EgressStage) -> None:
        """`tracks` mode: the files with their timelines, no file of the whole."""
        folder = "recordings/rec_1/"
        egress = await stage.start(Outputs(files=(FileOutput("", folder),)), source=RoomTracksSource())
        claim = await stage.claim(egress)
        recorder = await stage.recorders.number(0)
        for name in ("track-000-TR_1-0.webm", "track-000-TR_1-1.webm", "timeline-000.json"):
            (recorder.folder / name).write_text(name)
        recorder.says(
            Joined("RM_first"),
            Active(at(0)),
            TrackSeen("TR_1", "alice", "video", "vp8", 0, 3000, "track-000-TR_1-0.webm"),
            TrackSeen("TR_1", "alice", "video", "vp8", 4000, 9000, "track-000-TR_1-1.webm"),
            Measured(9000),
        )
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await stage.stop(egress)
        await claim.ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert {file.filename: (file.started_at, file.duration) for file in done.results.files} == {
            folder + "timeline-000.json": (at(0), 0),
            folder + "track-000-TR_1-0.webm": (at(0), 3_000_000_000),
            folder + "track-000-TR_1-1.webm": (at(4), 5_000_000_000),
        }
        recording = await stage.recording(egress)
        assert (recording.status, recording.key, recording.duration_sec) == ("COMPLETED", None, 9)
        assert len(manifest_of(stage, egress)["tracks"]) == 2  # type: ignore[arg-type]


class TestDelivery:
    async def _captured(self, stage: EgressStage) -> Egress:
        egress = await stage.start()
        claim = await stage.claim(egress)
        (await stage.recorders.number(0)).records(4, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await stage.stop(egress)
        await claim.ends()
        return egress

    async def test_what_cannot_be_stored_stays_on_the_server(self, stage: EgressStage) -> None:
        """A fault that will not pass: FAILED, and the file is kept and where is said."""
        egress = await self._captured(stage)
        blocked = stage.files / "objects" / egress.project_id
        blocked.parent.mkdir(parents=True)
        blocked.write_text("not a folder")
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert done.failing.code == "STORAGE_UPLOAD_FAILED"
        assert f"egress/{egress.id}" in done.failing.message
        assert (stage.files / "egress" / egress.id / "final.mp4").read_text() == "media"
        name, data = (await stage.events())[2]
        assert (name, data["errorCode"]) == ("recording.failed", "STORAGE_UPLOAD_FAILED")

    async def test_nothing_to_be_read_fails_it(self, stage: EgressStage) -> None:
        egress = await self._captured(stage)
        (stage.files / "egress" / egress.id / "part-000.mp4").write_text("garbage")
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert done.failing.code == "EGRESS_FAILED"

    async def test_a_delivery_that_breaks_again_and_again_keeps_the_files(self, stage: EgressStage) -> None:
        egress = await self._captured(stage)

        async def broken(*_: object) -> object:
            raise KeyError("a defect")

        stage.muxer.finish = broken  # type: ignore[method-assign,assignment]
        claim = await stage.begin_delivery()
        for _ in range(4):
            await claim.ends()
            assert (await stage.egress(egress)).status is EgressStatus.ENDING
            claim = await stage.deliver_again(claim)
        await claim.ends()
        done = await stage.becomes(egress, EgressStatus.FAILED)
        assert done.failing is not None
        assert f"egress/{egress.id}" in done.failing.message
        await stage.sweep.run()
        assert (stage.files / "egress" / egress.id / "part-000.mp4").exists()

    async def test_what_a_dead_worker_left_is_swept(self, stage: EgressStage) -> None:
        """It died between storing the end and removing the files; what still runs stays."""
        egress = await self._captured(stage)
        stage.recorders.started.clear()
        running = await stage.start()
        await stage.claim(running)
        (await stage.recorders.number(0)).records(1, at=at(0))
        folder = stage.files / "egress" / egress.id
        kept = [(path.name, path.read_bytes()) for path in folder.iterdir()]
        assert await stage.sweep.run() == 0
        await stage.deliver()
        await stage.becomes(egress, EgressStatus.COMPLETE)
        folder.mkdir()
        for name, content in kept:
            (folder / name).write_bytes(content)
        assert await stage.sweep.run() == 1
        assert not folder.exists()
        assert (stage.files / "egress" / running.id).exists()

    async def test_delivered_again_after_a_crash_it_ends_once(self, stage: EgressStage) -> None:
        egress = await self._captured(stage)
        first = await stage.begin_delivery()
        await first.dies()
        await (await stage.deliver_again(first)).ends()
        await stage.becomes(egress, EgressStatus.COMPLETE)
        assert (await stage.names()).count("recording.completed") == 1
