"""A disk that fills up while an egress runs: it is told in time, then what there is is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import Egress, EgressStatus
from server.egress.books import measured_by
from server.egress.take import TakeLimits
from tests.conftest import Eventually
from tests.contract.egress_script import at
from tests.contract.egress_stage import EgressStage
from tests.faults.disks import fill, shrink

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(60),
]
MIB = 1 << 20
LIMITS = TakeLimits(poll_sec=0.05, look_sec=0.01, finish_sec=5, handover_sec=5, min_free_bytes=4 * MIB)


@pytest.fixture
async def stage(
    database: SqlDatabase, small_disk: Path, eventually: Eventually
) -> AsyncIterator[EgressStage]:
    """Recordings and objects on the small disk, the database elsewhere."""
    stage = await EgressStage(database, small_disk / "data", eventually, limits=LIMITS).open()
    yield stage
    await stage.close()


async def test_told_in_time_and_ended_with_what_there_is(
    stage: EgressStage, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue section 5: warned once by event while it records on, then stopped cleanly."""
    egress = await stage.start()
    claim = await stage.claim(egress)
    (await stage.recorders.number(0)).records(3, at=at(0))
    await stage.becomes(egress, EgressStatus.ACTIVE)
    assert await stage.names() == ["recording.started", "recording_started"]

    fill(small_disk, leave=6 * MIB)
    told = await stage.eventually(lambda: warnings(stage))
    assert told == [
        {
            "egressId": egress.id,
            "roomName": egress.room_name,
            "type": "record",
            "status": "STARTED",
            "recordingId": egress.recording_id,
            "warning": {
                "code": "DISK_LOW",
                "message": "The disk of the server is filling up; the egress ends before it is full",
            },
        }
    ]
    assert (await stage.egress(egress)).status is EgressStatus.ACTIVE
    assert f"egress {egress.id}: only " in caplog.text

    fill(small_disk, leave=3 * MIB)
    await claim.ends()
    await stage.deliver()
    done = await stage.becomes(egress, EgressStatus.LIMIT_REACHED)
    assert done.details == "End reason: Disk nearly full"
    assert done.failing is not None
    assert done.failing.message == "The disk of the server is nearly full"
    assert stage.objects(egress)["recordings/rec_1.mp4"] == b"media"
    assert len(await warnings(stage)) == 1
    assert (await stage.names())[-1] == "egress.ended"


async def test_a_disk_that_is_suddenly_full_needs_no_warning(stage: EgressStage, small_disk: Path) -> None:
    """What has ended is told of by its end."""
    egress = await stage.start()
    claim = await stage.claim(egress)
    (await stage.recorders.number(0)).records(3, at=at(0))
    await stage.becomes(egress, EgressStatus.ACTIVE)
    shrink(small_disk, leave=MIB)
    await claim.ends()
    await stage.deliver()
    await stage.becomes(egress, EgressStatus.LIMIT_REACHED)
    assert await warnings(stage) == []


async def test_once_for_each_host(
    stage: EgressStage, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that takes it over on the same host repeats nothing; on another one it is another disk."""
    fill(small_disk, leave=6 * MIB)
    egress = await stage.start()
    told = []
    for number, host in enumerate(("one", "one", "two")):
        claim = await stage.claim(egress, host=host)
        recorder = await stage.recorders.number(number)
        await stage.eventually(lambda: caplog.text.count("of disk are left") == number + 1)  # noqa: B023
        # What is said now is written down after the warning.
        recorder.records(3, at=at(60 * number))
        await stage.eventually(lambda: measured(stage, egress, 3000 * (number + 1)))  # noqa: B023
        told.append(len(await warnings(stage)))
        await claim.dies()
    assert told == [1, 1, 2]


async def measured(stage: EgressStage, egress: Egress, duration_ms: int) -> bool:
    values = measured_by(await stage.job(egress.job_id))
    return values is not None and values["durationMs"] == duration_ms


async def warnings(stage: EgressStage) -> list[Any]:
    return [data for name, data in await stage.events() if name == "egress.updated"]
