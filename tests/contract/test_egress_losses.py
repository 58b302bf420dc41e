"""What captures lose and keep when recorders, workers and others die, on both databases."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import (
    Egress,
    EgressStatus,
    Outputs,
)
from server.domain.job import JobStatus
from server.egress.handler import BROKEN_ATTEMPTS
from server.egress.journal import Journal, Reported
from server.ports.recorder import (
    Active,
    Ended,
    Finish,
    Joined,
    StreamReport,
    TrackSeen,
)
from tests.conftest import Eventually
from tests.contract.egress_samples import (
    BOTH,
    FILE,
    HLS,
    MP4,
    STREAM,
    YOUTUBE,
    manifest_of,
    segment_written,
    told,
)
from tests.contract.egress_script import ROOM, at
from tests.contract.egress_stage import EgressStage


@pytest.fixture
async def stage(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[EgressStage]:
    stage = await EgressStage(database, tmp_path / "data", eventually).open()
    yield stage
    await stage.close()


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
        # What it said last of itself is written down after that.
        await stage.eventually(lambda: _measured(stage, egress, 4_000))
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

    @pytest.mark.parametrize(
        ("outputs", "status", "code"),
        [(MP4, EgressStatus.FAILED, "EGRESS_FAILED"), (STREAM, EgressStatus.COMPLETE, None)],
        ids=["file", "stream"],
    )
    async def test_is_its_disk_gone_with_its_host_that_is_said(
        self, stage: EgressStage, outputs: Outputs, status: EgressStatus, code: str | None
    ) -> None:
        """Not that it was stopped before it began; a stream leaves nothing that could be missing."""
        egress = await stage.start(outputs, type_="record" if outputs.files else "stream")
        claim = await stage.claim(egress)
        (await stage.recorders.number(0)).records(4, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await claim.dies()
        shutil.rmtree(stage.files / "egress" / egress.id)
        stage.rooms.sids = {}
        await (await stage.claim(egress)).ends()
        done = await stage.becomes(egress, status)
        assert (done.failing.code if done.failing else None) == code
        assert done.details == "End reason: " + ("Failure" if code else "Source closed")
        assert len(stage.recorders.started) == 1

    async def test_a_disk_that_was_full_ends_it_though_its_worker_died(self, stage: EgressStage) -> None:
        """Between the end of the capture and that of its job; nobody must record on in ENDING."""
        egress = await stage.start()
        claim = await stage.claim(egress)
        (await stage.recorders.number(0)).records(4, at=at(0))
        await stage.becomes(egress, EgressStatus.ACTIVE)
        await claim.dies()
        journal = await Journal.open(stage.files / "egress" / egress.id)
        await journal.add(Reported(0, Ended("stopped", ended_at=at(4))))
        async with stage.database.begin() as tx:
            stored = await tx.egresses.get(None, egress.id, lock=True)
            assert stored is not None
            await tx.egresses.save(
                replace(stored, status=EgressStatus.ENDING, details="End reason: Disk nearly full")
            )
            await tx.commit()
        await (await stage.claim(egress)).ends()
        await stage.deliver()
        done = await stage.becomes(egress, EgressStatus.LIMIT_REACHED)
        assert done.details == "End reason: Disk nearly full"
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
        await stage.eventually(lambda: told(stage, "stream.updated"))
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
            recorder.says(*(segment_written(recorder, number, 4 * number) for number in range(20)))
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
