"""Real recordings of a real room, put into a real S3 server that the request names: what lies there, and what is told."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from livekit import api
from livekit.protocol import egress as pb
from PIL import Image

from tests.conftest import Eventually
from tests.e2e.recording_stage import Media, decoded
from tests.people import People, Person
from tests.servers.bax import BaxServer, bax_server
from tests.servers.livekit import LiveKitServer
from tests.servers.s3 import S3Server
from tests.servers.versitygw import versitygw_server

# versitygw is built on first use, which takes minutes.
pytestmark = pytest.mark.timeout(1000)

KEY, SECRET = "APIstorageEgress", "storage-egress-secret-0123456789abcdefg"
FPS = 15
ADVANCED = pb.EncodingOptions(width=640, height=360, framerate=FPS, video_bitrate=600)
_FULL = (slice(None), slice(None))


@dataclass(frozen=True, slots=True)
class Vault:
    """A room whose recordings go into `bucket`."""

    server: BaxServer
    lk: api.LiveKitAPI
    s3: S3Server
    bucket: str
    room: str
    eventually: Eventually

    @property
    def upload(self) -> pb.S3Upload:
        return pb.S3Upload(
            access_key=self.s3.access_key,
            secret=self.s3.secret_key,
            region=self.s3.region,
            endpoint=self.s3.endpoint,
            bucket=self.bucket,
            force_path_style=True,
        )

    async def recorded(self, info: pb.EgressInfo, seconds: float) -> pb.EgressInfo:
        """Stopped once so much is recorded, and waited for until everything is in place; no key of the bucket is shown."""
        shown = [str(info)]

        async def enough() -> bool:
            answer = await asyncio.to_thread(self.server.call, "GET", f"/v1/egress/{info.egress_id}")
            assert answer.json["status"] == "STARTED", answer.json
            done: float = answer.json.get("progress", {}).get("durationMs", 0)
            return done >= seconds * 1000

        await self.eventually(enough, within=40)
        await self.lk.egress.stop_egress(pb.StopEgressRequest(egress_id=info.egress_id))

        async def ended() -> pb.EgressInfo | None:
            answer = await self.lk.egress.list_egress(pb.ListEgressRequest(egress_id=info.egress_id))
            shown.append(str(answer))
            (now,) = answer.items
            return now if now.status >= pb.EGRESS_COMPLETE else None

        done: pb.EgressInfo = await self.eventually(ended, within=40)
        assert (done.status, done.error) == (pb.EGRESS_COMPLETE, "")
        for key in (self.s3.access_key, self.s3.secret_key):
            assert not [text for text in (*shown, self.server.log) if key in text]
        return done

    def location(self, key: str) -> str:
        return f"{self.s3.endpoint}/{self.bucket}/{key}"

    async def objects(self) -> dict[str, bytes]:
        return await asyncio.to_thread(self._objects)

    def _objects(self) -> dict[str, bytes]:
        client = self.s3.client()
        try:
            keys = [one["Key"] for one in client.list_objects_v2(Bucket=self.bucket).get("Contents", [])]
            return {key: client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}
        finally:
            client.close()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with versitygw_server(tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory, livekit: LiveKitServer) -> Iterator[BaxServer]:
    settings = {
        **livekit.settings,
        "bootstrap_livekit_api_key": KEY,
        "bootstrap_livekit_api_secret": SECRET,
    }
    with bax_server(tmp_path_factory.mktemp("egress-storage"), **settings) as server:
        yield server


@pytest.fixture
async def vault(
    live_server: BaxServer, livekit: LiveKitServer, s3: S3Server, eventually: Eventually
) -> AsyncIterator[Vault]:
    room = f"vault-{uuid.uuid4().hex[:8]}"
    async with People(livekit) as people, api.LiveKitAPI(live_server.url, KEY, SECRET) as lk:
        await people.join(Person("ann", width=640, height=360, hz=1000), room)
        yield Vault(live_server, lk, s3, s3.new_bucket(), room, eventually)


def assert_shows_ann(media: Media) -> None:
    """Her counting picture in the size that was asked for, and her beeps."""
    assert {picture.shape for picture in media.luma} == {(360, 640)}
    assert any(number is not None for number in media.numbers(_FULL))
    assert media.beeps()


async def test_a_composition_lies_in_the_requests_own_bucket(vault: Vault) -> None:
    """Issue section 2: file, segments and images of one recording, each as large and where `EgressInfo` says it is.

    LK-62, LK-63, LK-73, LK-74, LK-78, LK-85, LK-86, LK-90, LK-91, LK-95, LK-96, LK-97, LK-99, LK-100.
    """
    room = vault.room
    info = await vault.lk.egress.start_room_composite_egress(
        pb.RoomCompositeEgressRequest(
            room_name=room,
            layout="speaker",
            advanced=ADVANCED,
            file_outputs=[pb.EncodedFileOutput(filepath="files/{room_name}", s3=vault.upload)],
            segment_outputs=[
                pb.SegmentedFileOutput(
                    filename_prefix="hls/part", playlist_name="all", segment_duration=1, s3=vault.upload
                )
            ],
            image_outputs=[
                pb.ImageOutput(
                    capture_interval=1, width=320, height=180, filename_prefix="shots/at", s3=vault.upload
                )
            ],
        )
    )
    done = await vault.recorded(info, 3)
    echo = done.room_composite
    uploads = [echo.file_outputs[0].s3, echo.segment_outputs[0].s3, echo.image_outputs[0].s3]
    assert [one.secret for one in uploads] == ["{secret}"] * 3
    objects = await vault.objects()

    (file,) = done.file_results
    assert file.filename == f"files/{room}.mp4"
    assert file.location == vault.location(file.filename)
    assert file.size == len(objects[file.filename])
    media = decoded(objects[file.filename])
    assert_shows_ann(media)
    assert media.codecs == ("h264", "aac")
    seconds = len(media.times) / FPS
    assert seconds >= 3
    assert file.duration / 1e9 == pytest.approx(seconds, abs=0.15)

    (hls,) = done.segment_results
    assert hls.playlist_name == "hls/all.m3u8"
    assert hls.playlist_location == vault.location(hls.playlist_name)
    lines = objects[hls.playlist_name].decode().splitlines()
    assert lines[-1] == "#EXT-X-ENDLIST"
    segments = [f"hls/{line}" for line in lines if line and not line.startswith("#")]
    lengths = [float(line[8:].partition(",")[0]) for line in lines if line.startswith("#EXTINF:")]
    assert len(segments) == len(lengths) == hls.segment_count >= 3
    assert hls.size == sum(len(objects[name]) for name in segments)
    assert sum(lengths) == pytest.approx(hls.duration / 1e9, abs=0.01)
    assert sum(lengths) == pytest.approx(seconds, abs=0.25)
    streamed = decoded(b"".join(objects[name] for name in segments))
    assert_shows_ann(streamed)
    assert len(streamed.times) == pytest.approx(len(media.times), abs=3)

    (shots,) = done.image_results
    assert shots.filename_prefix == "shots/at"
    images = sorted(name for name in objects if name.endswith(".jpeg"))
    assert images == [f"shots/at_{number:05d}.jpeg" for number in range(shots.image_count)]
    assert len(images) >= 2
    for name in images:
        with Image.open(io.BytesIO(objects[name])) as image:
            image.load()
            assert (image.format, image.size) == ("JPEG", (320, 180))

    manifests = {f"{folder}/{done.egress_id}.json" for folder in ("files", "hls", "shots")}
    assert done.manifest_location == vault.location(f"files/{done.egress_id}.json")
    assert set(objects) == {file.filename, hls.playlist_name, *segments, *images, *manifests}
    for name in manifests:
        manifest = json.loads(objects[name])
        assert (manifest["egress_id"], manifest["room_name"]) == (done.egress_id, room)
        assert manifest["files"] == [{"filename": file.filename, "location": file.location}]
        (playlist,) = manifest["playlists"]
        assert playlist["location"] == hls.playlist_location
        assert playlist["segments"] == [
            {"filename": one, "location": vault.location(one)} for one in segments
        ]
        assert [one["filename"] for one in manifest["images"]] == images


async def test_the_one_call_for_everything_records(vault: Vault) -> None:
    """Issue section 2: `StartEgress`, with the bucket of the whole request."""
    info = await vault.lk.egress.start_egress(
        pb.StartEgressRequest(
            room_name=vault.room,
            template=pb.TemplateSource(layout="grid"),
            advanced=ADVANCED,
            outputs=[pb.Output(file=pb.FileOutput(filepath="calls/{room_name}"))],
            storage=pb.StorageConfig(s3=vault.upload),
        )
    )
    assert info.WhichOneof("request") == "egress"
    done = await vault.recorded(info, 3)
    assert done.egress.storage.s3.secret == "{secret}"
    objects = await vault.objects()
    (file,) = done.file_results
    assert file.filename == f"calls/{vault.room}.mp4"
    assert file.location == vault.location(file.filename)
    assert file.size == len(objects[file.filename])
    assert set(objects) == {file.filename, f"calls/{done.egress_id}.json"}
    media = decoded(objects[file.filename])
    assert_shows_ann(media)
    assert len(media.times) >= 3 * FPS
