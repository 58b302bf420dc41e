"""What becomes of a segment that was being written when its recorder died, on both databases."""

from __future__ import annotations

import asyncio
import fcntl
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import Egress, EgressStatus
from server.egress.journal import JOURNAL_NAME
from server.ports.recorder import Active, Broke, Joined, Measured
from tests.conftest import Eventually
from tests.contract.egress_samples import HLS, segment_written
from tests.contract.egress_script import ScriptedRecorder, at
from tests.contract.egress_stage import Claim, EgressStage
from tests.media import Clip, ClipFactory

MANIFEST = "live/index.manifest.json"


@pytest.fixture
async def stage(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[EgressStage]:
    stage = await EgressStage(database, tmp_path / "data", eventually).open()
    yield stage
    await stage.close()


@pytest.fixture
def leftover(clips: ClipFactory) -> bytes:
    """Two seconds of a segment but for the end of its last picture."""
    return clips.clip(Clip(extension="ts", seconds=2.0)).read_bytes()[:-1000]


def playlist(stage: EgressStage, egress: Egress, name: str = "index") -> list[str]:
    return stage.objects(egress).get(f"live/{name}.m3u8", b"").decode().splitlines()


def listed(stage: EgressStage, egress: Egress, name: str = "index") -> list[str]:
    return [line for line in playlist(stage, egress, name) if line.endswith(".ts")]


def lengths(stage: EgressStage, egress: Egress) -> list[float]:
    return [float(line[8:-1]) for line in playlist(stage, egress) if line.startswith("#EXTINF:")]


async def one_segment(stage: EgressStage, egress: Egress) -> ScriptedRecorder:
    """A recorder that has told of a segment of four seconds, which is in place."""
    recorder = await stage.recorders.number(0)
    recorder.says(Joined("RM_first"), Active(at(0)), segment_written(recorder, 0, 0), Measured(7500))
    await stage.eventually(lambda: listed(stage, egress) == ["seg_00000.ts"])
    return recorder


async def comes(stage: EgressStage, number: int) -> bool:
    """Whether this recorder is started soon."""
    try:
        async with asyncio.timeout(0.3):
            await stage.recorders.number(number)
    except TimeoutError:
        return False
    return True


async def delivered(stage: EgressStage, egress: Egress, status: EgressStatus) -> Egress:
    await stage.deliver()
    return await stage.becomes(egress, status)


async def goes_on(stage: EgressStage, egress: Egress, claim: Claim, number: int) -> Egress:
    """The next recorder makes the segment of this number, four seconds; then it is stopped and delivered."""
    second = await stage.recorders.number(1)
    second.says(Joined("RM_first"), Active(at(9)), segment_written(second, 0, 9), Measured(4000))
    await stage.eventually(lambda: f"live/seg_0000{number}.ts" in stage.objects(egress))
    await stage.stop(egress)
    await claim.ends()
    return await delivered(stage, egress, EgressStatus.COMPLETE)


def manifest_of(stage: EgressStage, egress: Egress) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stage.objects(egress)[MANIFEST])
    return found


async def test_it_is_played_before_the_next_recorder_has_anything(
    stage: EgressStage, leftover: bytes
) -> None:
    """Issue section 5: in both playlists with its true length; what is in place is not uploaded again."""
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    (stored,) = (stage.files / "objects").rglob("seg_00000.ts")
    before = stored.stat()
    (first.folder / "seg-000-00001.ts").write_bytes(leftover)
    first.dies()
    await stage.eventually(lambda: listed(stage, egress, "live") == ["seg_00000.ts", "seg_00001.ts"])
    done = await goes_on(stage, egress, claim, 2)

    assert listed(stage, egress) == [f"seg_0000{number}.ts" for number in range(3)]
    four, kept, last = lengths(stage, egress)
    assert (four, last) == (4.0, 4.0)
    assert 1.8 < kept <= 2.0
    assert playlist(stage, egress)[-5] == "#EXT-X-DISCONTINUITY"
    assert playlist(stage, egress).count("#EXT-X-DISCONTINUITY") == 1
    assert leftover.startswith(stage.objects(egress)["live/seg_00001.ts"])
    assert stored.stat() == before
    assert done.results.segments[0].segment_count == 3


async def test_the_manifest_counts_what_is_left_of_it(stage: EgressStage, leftover: bytes) -> None:
    """Section 13: the gap begins where it ends, and it is one of the objects."""
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    (first.folder / "seg-000-00001.ts").write_bytes(leftover)
    first.dies()
    await goes_on(stage, egress, claim, 2)
    kept_ms = lengths(stage, egress)[1] * 1000
    manifest = manifest_of(stage, egress)
    gap = {"startMs": round(4000 + kept_ms), "durationMs": round(5000 - kept_ms), "reason": "RECORDER_LOST"}
    assert manifest["gaps"] == [gap]
    assert manifest["durationMs"] == round(8000 + kept_ms)
    assert {one["key"] for one in manifest["objects"]} == set(stage.objects(egress)) - {MANIFEST}


@pytest.mark.parametrize("left", [b"", b"G" * 500, bytes(4096)], ids=["empty", "noise", "zeros"])
async def test_nothing_is_made_of_nothing(stage: EgressStage, left: bytes) -> None:
    """No number is used up by it, and it is gone from the disk."""
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    (first.folder / "seg-000-00001.ts").write_bytes(left)
    first.dies()
    await stage.recorders.number(1)
    assert not (first.folder / "seg-000-00001.ts").exists()
    await goes_on(stage, egress, claim, 1)
    assert listed(stage, egress) == ["seg_00000.ts", "seg_00001.ts"]
    assert lengths(stage, egress) == [4.0, 4.0]
    gaps = manifest_of(stage, egress)["gaps"]
    assert gaps == [{"startMs": 4000, "durationMs": 5000, "reason": "RECORDER_LOST"}]


async def test_without_another_recorder_it_ends_the_playlist(stage: EgressStage, leftover: bytes) -> None:
    """Issue section 5: worker and room are gone; it is finished from what is on disk."""
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    (first.folder / "seg-000-00001.ts").write_bytes(leftover)
    await claim.dies()
    stage.rooms.sids = {}
    await (await stage.claim(egress)).ends()
    done = await delivered(stage, egress, EgressStatus.COMPLETE)
    assert listed(stage, egress) == ["seg_00000.ts", "seg_00001.ts"]
    assert playlist(stage, egress)[-1] == "#EXT-X-ENDLIST"
    assert "#EXT-X-DISCONTINUITY" not in playlist(stage, egress)
    assert done.results.segments[0].duration == round(sum(lengths(stage, egress)) * 1e9)
    assert done.results.segments[0].ended_at - at(0) == done.results.segments[0].duration
    assert len(stage.recorders.started) == 1


async def test_a_recorder_that_gives_up_leaves_one_too(stage: EgressStage, leftover: bytes) -> None:
    """Design 7: its disk refused in the middle of a segment; the start of it is there."""
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    (first.folder / "seg-000-00001.ts").write_bytes(leftover)
    first.says(Broke("STORAGE_UPLOAD_FAILED", "could not record: no space left", 500))
    await claim.ends()
    await delivered(stage, egress, EgressStatus.FAILED)
    assert listed(stage, egress) == ["seg_00000.ts", "seg_00001.ts"]


async def test_one_that_broke_writes_no_more_when_its_files_are_read(
    stage: EgressStage, leftover: bytes
) -> None:
    """Design 7: whatever broke, other threads of it may not know yet; the next one begins when it is gone."""
    egress = await stage.start(HLS)
    await stage.claim(egress)
    first = await one_segment(stage, egress)
    (first.folder / "seg-000-00001.ts").write_bytes(leftover)
    first.says(Broke("INTERNAL", "the recorder failed: KeyError", 500, retry=True))
    await stage.eventually(lambda: listed(stage, egress, "live") == ["seg_00000.ts", "seg_00001.ts"])
    assert first.killed


async def test_a_recorder_that_outlives_its_worker_is_waited_for(stage: EgressStage, leftover: bytes) -> None:
    """Issue section 5: it still finishes what is open, and another segment; nothing is read before it is done."""
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    with (first.folder / "seg-000.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        half = len(leftover) // 2
        (first.folder / "seg-000-00001.ts").write_bytes(leftover[:half])
        await claim.dies()
        await stage.claim(egress)
        assert not await comes(stage, 1)
        with (first.folder / "seg-000-00001.ts").open("ab") as file:
            file.write(leftover[half:])
        (first.folder / "seg-000-00002.ts").write_bytes(leftover)
    await stage.recorders.number(1)
    three = [f"seg_0000{number}.ts" for number in range(3)]
    await stage.eventually(lambda: listed(stage, egress, "live") == three)
    one, two = (stage.objects(egress)[f"live/{name}"] for name in three[1:])
    assert one == two
    assert leftover.startswith(one)


async def test_one_that_never_ends_is_not_waited_for_any_longer(stage: EgressStage, leftover: bytes) -> None:
    """What it writes is left as it is, and is in no playlist."""
    stage.studio = replace(stage.studio, restarts=replace(stage.studio.restarts, orphan_sec=0.1))
    stage.rework()
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    with (first.folder / "seg-000.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (first.folder / "seg-000-00001.ts").write_bytes(leftover)
        await claim.dies()
        await stage.claim(egress)
        second = await stage.recorders.number(1)
        second.says(Joined("RM_first"), Active(at(9)), segment_written(second, 0, 9))
        await stage.eventually(lambda: "live/seg_00001.ts" in stage.objects(egress))
        assert (first.folder / "seg-000-00001.ts").read_bytes() == leftover
    assert stage.objects(egress)["live/seg_00001.ts"] == b"segment 1.0"


async def test_what_did_not_fit_into_the_journal_is_delivered(stage: EgressStage, leftover: bytes) -> None:
    """Design 7: the disk that refused has room again when everything else is over."""
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    (first.folder / "seg-000-00001.ts").write_bytes(leftover)
    journal = first.folder / JOURNAL_NAME
    kept = journal.rename(first.folder / "kept")
    journal.symlink_to("/dev/full")
    first.says(Broke("STORAGE_UPLOAD_FAILED", "could not record: no space left", 500))
    await claim.ends()
    kept.replace(journal)
    assert listed(stage, egress) == ["seg_00000.ts"]
    done = await delivered(stage, egress, EgressStatus.LIMIT_REACHED)
    assert listed(stage, egress) == ["seg_00000.ts", "seg_00001.ts"]
    assert done.results.segments[0].segment_count == 2


@pytest.mark.parametrize("goes_on", [False, True])
async def test_one_that_cannot_be_read_costs_only_itself(stage: EgressStage, *, goes_on: bool) -> None:
    egress = await stage.start(HLS)
    claim = await stage.claim(egress)
    first = await one_segment(stage, egress)
    (first.folder / "seg-000-00001.ts").mkdir()
    first.dies()
    second = await stage.recorders.number(1)
    if goes_on:
        second.says(Joined("RM_first"), Active(at(9)), segment_written(second, 0, 9))
        await stage.eventually(lambda: "live/seg_00001.ts" in stage.objects(egress))
    await stage.stop(egress)
    await claim.ends()
    await delivered(stage, egress, EgressStatus.COMPLETE)
    assert lengths(stage, egress) == [4.0] * (2 if goes_on else 1)
