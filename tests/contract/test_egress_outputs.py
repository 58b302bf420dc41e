"""Segments, images, tracks and deliveries of captures, on both databases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import (
    Egress,
    EgressStatus,
    FileOutput,
    ImagesOutput,
    Outputs,
    Surface,
)
from server.domain.egress_sources import RoomTracksSource
from server.ports.recorder import (
    Active,
    ImageWritten,
    Joined,
    Measured,
    TrackSeen,
)
from tests.conftest import Eventually
from tests.contract.egress_samples import (
    HLS,
    manifest_of,
    segment_written,
)
from tests.contract.egress_script import at
from tests.contract.egress_stage import EgressStage


@pytest.fixture
async def stage(database: SqlDatabase, tmp_path: Path, eventually: Eventually) -> AsyncIterator[EgressStage]:
    stage = await EgressStage(database, tmp_path / "data", eventually).open()
    yield stage
    await stage.close()


class TestSegmentsAndImages:
    async def test_segments_are_playable_while_it_runs_and_after(self, stage: EgressStage) -> None:
        """Section 3.3: each playlist only after its segments; a new part is a discontinuity; ENDLIST at the end."""
        egress = await stage.start(HLS)
        claim = await stage.claim(egress)
        first = await stage.recorders.number(0)
        assert (first.plan.container, first.plan.segment_sec) == ("", 4)
        first.says(
            Joined("RM_first"), Active(at(0)), segment_written(first, 0, 0), segment_written(first, 1, 4)
        )
        await stage.eventually(lambda: b"00001.ts" in stage.objects(egress).get("live/live.m3u8", b""))
        assert stage.objects(egress)["live/seg_00000.ts"] == b"segment 0.0"
        assert b"ENDLIST" not in stage.objects(egress)["live/index.m3u8"]
        assert not (first.folder / "seg-000-00000.ts").exists()
        first.dies()
        second = await stage.recorders.number(1)
        second.says(Joined("RM_first"), Active(at(9)), segment_written(second, 0, 9))
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
        first.says(Joined("RM_first"), Active(at(0)), segment_written(first, 0, 0))
        await stage.eventually(lambda: b"00000.ts" in stage.objects(egress).get("live/index.m3u8", b""))
        await claim.dies()
        await stage.claim(egress)
        second = await stage.recorders.number(1)
        second.says(Active(at(9)), segment_written(second, 0, 9))
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
        gone = segment_written(recorder, 1, 4)
        (recorder.folder / gone.file).unlink()
        recorder.says(Joined("RM_first"), Active(at(0)))
        recorder.says(segment_written(recorder, 0, 0), gone, segment_written(recorder, 2, 8))
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

    async def test_a_delivery_that_died_after_its_failure_was_told_keeps_the_files(
        self, stage: EgressStage
    ) -> None:
        """Between the egress's end and the job's: whoever takes it over must not take it for delivered."""
        egress = await self._captured(stage)
        (stage.files / "objects").mkdir(parents=True)
        (stage.files / "objects" / egress.project_id).write_text("not a folder")
        first = await stage.begin_delivery()
        await first.ends()
        await stage.becomes(egress, EgressStatus.FAILED)
        await stage.unfinish(first)
        await (await stage.deliver_again(first)).ends()
        await stage.sweep.run()
        assert (stage.files / "egress" / egress.id / "final.mp4").read_text() == "media"

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
