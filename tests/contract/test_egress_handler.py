"""Captures and their deliveries on both databases, with recorders that do what a script says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import EgressStatus
from server.domain.job import JobStatus
from tests.conftest import Eventually
from tests.contract.egress_stage import EgressStage, at


@pytest.fixture
async def stage(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[EgressStage]:
    stage = await EgressStage(database, tmp_path / "data", eventually).open()
    yield stage
    await stage.close()


async def test_a_recording_from_start_to_its_file(stage: EgressStage) -> None:
    """WH-25 … WH-30, WH-37 … WH-43, E.1: started once, active with the first media, completed with the file in place."""
    egress = await stage.start()
    claim = await stage.claim(egress)
    recorder = await stage.recorders.number(0)
    recorder.records(12.4, at=at(0))
    await stage.eventually(lambda: _has(stage, egress, EgressStatus.ACTIVE))
    assert (await stage.egress(egress)).active_at == at(0)

    await stage.control.stop(egress.project_id, egress.id)
    await claim.ends()
    ending = await stage.egress(egress)
    assert (ending.status, ending.details) == (EgressStatus.ENDING, "End reason: StopEgress API")
    await stage.deliver()

    done = await stage.egress(egress)
    assert done.status is EgressStatus.COMPLETE
    assert done.failing is None
    (file,) = done.results.files
    assert (file.filename, file.started_at, file.duration) == ("recordings/rec_1.mp4", at(0), 12_400_000_000)
    assert stage.objects(egress)["recordings/rec_1.mp4"] == b"media"
    recording = await stage.recording(egress)
    assert (recording.status, recording.key, recording.duration_sec) == ("COMPLETED", file.filename, 12)
    names = await stage.names()
    assert names == [
        "recording.started",
        "recording_started",
        "recording.completed",
        "egress_ended",
        "recording_finished",
        "egress.ended",
    ]
    assert (await stage.job(egress.job_id)).status is JobStatus.COMPLETED
    assert not (stage.files / "egress" / egress.id).exists()


async def _has(stage: EgressStage, egress: object, status: EgressStatus) -> bool:
    return (await stage.egress(egress)).status is status  # type: ignore[arg-type]
