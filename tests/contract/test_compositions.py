"""Compositions of recorded tracks as jobs: attempts that die, are overtaken, or fail for good, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adapters.db.unit_of_work import SqlDatabase
from generated.baxcloud.v1 import egress_pb2 as pb
from server.context import CallContext, Caller, CallerKind
from server.domain.egress import EgressStatus, Encoding, FileOutput, Outputs
from server.domain.egress_sources import RoomTracksSource
from server.domain.recording import Recording
from server.egress.composing import CompositionHandler, CompositionSweep, Cutter, composition_job_id
from server.egress.recording_files import RecordingFiles
from server.egress.storage import EgressStorages
from server.egress.storage_choice import StoragePolicy
from server.ports.recorder import Active, ComposerBroke, Finished, Joined, Measured
from server.services.recording_compositions import RecordingCompositions
from tests.conftest import Eventually
from tests.contract.egress_script import at
from tests.contract.egress_stage import PROJECT, EgressStage

TRACK = "track-000-TR_1-0.webm"


@dataclass
class ScriptedComposer:
    """`RoomComposer` that waits until it may go on; `empty`: there is no media."""

    goes_on: asyncio.Event = field(default_factory=asyncio.Event)
    began: list[Path] = field(default_factory=list)
    empty: bool = False

    async def compose(
        self,
        folder: Path,
        target: Path,
        *,
        layout: str,
        encoding: Encoding,
        container: str,
        on_progress: Callable[[float], None],
    ) -> Finished:
        self.began.append(folder)
        await self.goes_on.wait()
        if self.empty:
            raise ValueError("no media")
        if not (folder / TRACK).exists():
            raise ComposerBroke("somebody took the tracks away")
        target.write_text(f"{layout} of {(folder / TRACK).read_text()}")
        return Finished(9000, ())


@dataclass
class Scene:
    stage: EgressStage
    composer: ScriptedComposer
    handler: CompositionHandler
    sweep: CompositionSweep
    recording: Recording

    async def now(self) -> Recording:
        async with self.stage.database.read() as tx:
            found = await tx.recordings.get(PROJECT, self.recording.id)
        assert found is not None
        return found


@pytest.fixture
async def scene(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[Scene]:
    stage = await EgressStage(database, tmp_path / "data", eventually).open()
    source = await _tracks(stage)
    storages = EgressStorages(database, stage.storage, StoragePolicy(None, True, PROJECT))
    composer = ScriptedComposer()
    cutter = Cutter(database, storages, composer, stage.clock, tmp_path / "compositions", {})
    service = RecordingCompositions(database, stage.engine, RecordingFiles(database, storages), stage.clock)
    call = CallContext("test", "test", "request", Caller(CallerKind.API_KEY, PROJECT), {})
    made = await service.compose_recording(
        pb.ComposeRecordingRequest(recording_id=source.id, layout="speaker"), call
    )
    async with database.read() as tx:
        recording = await tx.recordings.get(PROJECT, made.id)
    assert recording is not None
    yield Scene(
        stage, composer, CompositionHandler(cutter), CompositionSweep(database, stage.clock), recording
    )
    await stage.close()


async def test_who_lost_it_leaves_the_files_of_whoever_has_it(scene: Scene, tmp_path: Path) -> None:
    """Both on one host: the first was thought dead and only slow."""
    first = await scene.stage.begin(composition_job_id(scene.recording), scene.handler)
    await scene.stage.eventually(lambda: _began(scene, 1))
    second = await scene.stage.begin(composition_job_id(scene.recording), scene.handler)
    await scene.stage.eventually(lambda: _began(scene, 2))
    await first.dies()
    assert not scene.composer.began[0].exists()
    scene.composer.goes_on.set()
    await second.ends()
    done = await scene.now()
    assert (done.status, done.duration_sec, done.composed_from is None) == ("COMPLETED", 9, False)
    assert not (tmp_path / "compositions" / second.run.job.id).exists()
    assert (await scene.stage.names()).count("recording.completed") == 2


async def test_one_that_fails_says_so(scene: Scene) -> None:
    """There is nothing to compose: no further attempt would help."""
    scene.composer.empty = True
    scene.composer.goes_on.set()
    await (await scene.stage.begin(composition_job_id(scene.recording), scene.handler)).ends()
    done = await scene.now()
    assert (done.status, done.error_code, done.error_message) == (
        "FAILED",
        "EGRESS_FAILED",
        "the recording holds no media",
    )
    assert "recording.failed" in await scene.stage.names()
    assert await scene.sweep.run() == 0


async def test_one_whose_failure_was_told_by_nobody(scene: Scene) -> None:
    """The worker died behind the end of the job."""
    job_id = composition_job_id(scene.recording)
    assert await scene.sweep.run() == 0
    async with scene.stage.database.begin() as tx:
        job = await tx.jobs.claim(job_id, owner="w", now=scene.stage.clock.now())
        assert job is not None
        now = scene.stage.clock.now()
        assert await tx.jobs.fail(job_id, epoch=job.epoch, code="INTERNAL", message="it broke", now=now)
        await tx.commit()
    assert await scene.sweep.run() == 1
    done = await scene.now()
    assert (done.status, done.error_code) == ("FAILED", "INTERNAL")
    assert await scene.sweep.run() == 0


async def _tracks(stage: EgressStage) -> Recording:
    """A recording of tracks that is complete."""
    outputs = Outputs(files=(FileOutput("", "recordings/rec_1/"),))
    egress = await stage.start(outputs, source=RoomTracksSource())
    claim = await stage.claim(egress)
    recorder = await stage.recorders.number(0)
    (recorder.folder / TRACK).write_text("a track")
    recorder.says(Joined("RM_first"), Active(at(0)), Measured(9000))
    await stage.becomes(egress, EgressStatus.ACTIVE)
    await stage.stop(egress)
    await claim.ends()
    await stage.deliver()
    await stage.becomes(egress, EgressStatus.COMPLETE)
    return await stage.recording(egress)


async def _began(scene: Scene, attempts: int) -> bool:
    return len(scene.composer.began) == attempts
