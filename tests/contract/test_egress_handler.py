"""Captures and their orders on both databases, with recorders that do what a script says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import jwt
import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import (
    Egress,
    EgressStatus,
    StreamStatus,
)
from server.domain.egress_sources import ParticipantSource, RoomSource, Source
from server.domain.job import JobStatus
from server.domain.room import Participant, ParticipantKind, ParticipantState, Track
from server.egress.take import TakeLimits
from server.errors import ServiceError
from server.ports.recorder import (
    Active,
    Broke,
    Ended,
    Joined,
    StreamReport,
)
from tests.conftest import Eventually
from tests.contract.egress_samples import (
    BOTH,
    FILE,
    REFUSED,
    STREAM,
    TWITCH,
    YOUTUBE,
    told,
)
from tests.contract.egress_script import ROOM, at
from tests.contract.egress_stage import EgressStage


@pytest.fixture
async def stage(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[EgressStage]:
    stage = await EgressStage(database, tmp_path / "data", eventually).open()
    yield stage
    await stage.close()


class TestCourse:
    async def test_a_recording_from_start_to_its_file(self, stage: EgressStage) -> None:
        """E.1: started once, completed with the file in place.

        WH-25, WH-26, WH-27, WH-28, WH-29, WH-30, WH-37, WH-38, WH-39, WH-40, WH-41, WH-42, WH-43, RT-22,
        RT-23, RT-24, RT-25, RT-26, RT-27, RT-28.
        """
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

    @pytest.mark.parametrize(
        ("people", "source", "layout", "at_once"),
        [
            (9, RoomSource(), "grid", True),
            (10, RoomSource(), "grid", False),
            (9, RoomSource(), "speaker-dark", True),
            (1, RoomSource(), "single-speaker", False),
            (1, RoomSource(audio_only=True), "grid", False),
            (1, RoomSource(base_url="https://example.com"), "grid", False),
            (1, ParticipantSource("person-0"), "grid", False),
        ],
    )
    async def test_a_small_room_is_asked_for_all_at_once(
        self, stage: EgressStage, people: int, source: Source, layout: str, *, at_once: bool
    ) -> None:
        """Issue section 6: the first frame within half a second; only what is shown of a large one."""
        tracks = (Track("TR_v", "VIDEO", "CAMERA"), Track("TR_a", "AUDIO", "MICROPHONE"))
        stage.rooms.people = tuple(
            Participant(
                f"PA_{number}",
                f"person-{number}",
                "",
                ParticipantState.ACTIVE,
                ParticipantKind.STANDARD,
                None,
                tracks=tracks,
            )
            for number in range(people)
        )
        await stage.claim(await stage.start(source=source, layout=layout))
        assert (await stage.recorders.number(0)).plan.at_once is at_once

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
        """It ends at once, told of as any other, and nobody waits for a worker that may never come."""
        egress = await stage.start()
        await stage.stop(egress)
        done = await stage.egress(egress)
        assert (done.status, done.details) == (EgressStatus.ABORTED, "End reason: StopEgress API")
        assert (await stage.job(egress.job_id)).status is JobStatus.CANCELLED
        assert (await stage.recording(egress)).error_code == "EGRESS_ABORTED"
        assert (await stage.names())[:3:2] == ["recording.started", "recording.failed"]
        with pytest.raises(ServiceError, match="EGRESS_ABORTED cannot be stopped"):
            await stage.stop(egress)

    async def test_stopped_between_two_workers_no_recorder_starts(self, stage: EgressStage) -> None:
        """What a worker had may have media: only a worker can end it."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        await stage.recorders.number(0)
        await claim.dies()
        await stage.stop(egress)
        assert (await stage.egress(egress)).status is EgressStatus.STARTING
        await (await stage.claim(egress)).ends()
        await stage.becomes(egress, EgressStatus.ABORTED)
        assert len(stage.recorders.started) == 1

    async def test_whoever_comes_late_opens_no_room_again(self, stage: EgressStage) -> None:
        """It waited for a worker for so long that its room was closed."""
        egress = await stage.start()
        async with stage.database.begin() as tx:
            stored = await tx.egresses.get(None, egress.id, lock=True)
            assert stored is not None
            await tx.egresses.save(replace(stored, started_at=stored.started_at - 60_000_000_000))
            await tx.commit()
        stage.rooms.sids = {}
        await (await stage.claim(egress)).ends()
        done = await stage.becomes(egress, EgressStatus.ABORTED)
        assert done.details == "End reason: Source closed"
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
        await stage.eventually(lambda: told(stage, "stream.failed"))
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
        """EG-48, WH-44, WH-45, WH-46, section 2.4: the destination's own code, 503."""
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
        await stage.eventually(lambda: told(stage, "stream.updated"))
        await stage.stop(egress)
        await claim.ends()
        done = await stage.becomes(egress, EgressStatus.COMPLETE)
        assert [stream.status for stream in done.results.streams] == [StreamStatus.FINISHED]
        assert (await stage.names())[-2:] == ["stream.completed", "egress.ended"]
