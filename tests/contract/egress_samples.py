"""What captures are asked for in tests, and how what came of them is read."""

from __future__ import annotations

import json
from dataclasses import replace

from server.domain.egress import Destination, Egress, FileOutput, Outputs, SegmentsOutput
from server.ports.recorder import SegmentWritten
from tests.contract.egress_script import ScriptedRecorder, at
from tests.contract.egress_stage import EgressStage

YOUTUBE = Destination("dst_1", "rtmp://a.rtmp.youtube.com/live2/abcd-efgh")
TWITCH = Destination("dst_2", "rtmp://live.twitch.tv/app/secret_key")
REFUSED = ("RTMP connection refused by destination", "RTMP_CONNECTION_REFUSED")
FILE = "recordings/rec_1.mp4"
MP4 = Outputs(files=(FileOutput("mp4", FILE),))
BOTH = replace(MP4, streams="rtmp")
STREAM = Outputs(streams="rtmp")
HLS = Outputs(segments=(SegmentsOutput("live/seg", "index.m3u8", "live.m3u8"),))


def manifest_of(stage: EgressStage, egress: Egress) -> dict[str, object]:
    found: dict[str, object] = json.loads(stage.objects(egress)["recordings/rec_1.manifest.json"])
    return found


async def told(stage: EgressStage, name: str) -> bool:
    return name in await stage.names()


def segment_written(recorder: ScriptedRecorder, number: int, started: float) -> SegmentWritten:
    name = f"seg-{recorder.plan.part:03d}-{number:05d}.ts"
    (recorder.folder / name).write_text(f"segment {recorder.plan.part}.{number}")
    return SegmentWritten(name, number, 4.0, at(started))
