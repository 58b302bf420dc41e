"""`livekit.Egress` by LiveKit's own Python SDK, on real rooms: what comes out, under which names, and how it is told."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from livekit import api
from livekit.protocol import egress as pb
from livekit.protocol import models as models_pb
from livekit.protocol import room as room_pb
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from adapters.web.programs import missing_programs
from tests.conftest import Eventually
from tests.e2e.browser import opened_page
from tests.e2e.recording_stage import decoded
from tests.people import People, Person
from tests.servers.bax import ROOT, BaxServer, bax_server
from tests.servers.http import bound_socket, serving
from tests.servers.livekit import LiveKitServer
from tests.servers.s3 import free_port
from tests.sinks import Sink

KEY, SECRET = "APIliveEgress", "live-egress-secret-0123456789abcdefghij"
ADVANCED = pb.EncodingOptions(width=640, height=360, framerate=15, video_bitrate=600)


@dataclass(frozen=True, slots=True)
class Hall:
    """A server with a room in it, called through `lk`; `folder` holds the objects of the data directory."""

    server: BaxServer
    lk: api.LiveKitAPI
    people: People
    room: str
    folder: Path
    eventually: Eventually

    async def reaches(self, egress_id: str, status: int) -> pb.EgressInfo:
        async def there() -> pb.EgressInfo | None:
            request = pb.ListEgressRequest(egress_id=egress_id)
            info = (await self.lk.egress.list_egress(request)).items[0]
            assert not info.error, info
            return info if info.status >= status else None

        info: pb.EgressInfo = await self.eventually(there, within=40)
        assert info.status == status
        return info

    async def recorded(self, info: pb.EgressInfo, seconds: float) -> pb.EgressInfo:
        """Stopped once so much is recorded, and waited for until everything is in place."""

        async def enough() -> bool:
            answer = await asyncio.to_thread(self.server.call, "GET", f"/v1/egress/{info.egress_id}")
            done: float = answer.json.get("progress", {}).get("durationMs", 0)
            return done >= seconds * 1000

        await self.eventually(enough, within=40)
        stopped = await self.lk.egress.stop_egress(pb.StopEgressRequest(egress_id=info.egress_id))
        assert stopped.status == pb.EGRESS_ENDING
        return await self.reaches(info.egress_id, pb.EGRESS_COMPLETE)

    def object(self, name: str) -> bytes:
        (found,) = (self.folder / "objects").rglob(name)
        return found.read_bytes()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("livekit-egress")


@pytest.fixture(scope="module")
def live_server(data_dir: Path, livekit: LiveKitServer) -> Iterator[BaxServer]:
    settings = {
        **livekit.settings,
        "bootstrap_livekit_api_key": KEY,
        "bootstrap_livekit_api_secret": SECRET,
    }
    with bax_server(data_dir, **settings) as server:
        yield server


@pytest.fixture
async def hall(
    live_server: BaxServer, data_dir: Path, livekit: LiveKitServer, eventually: Eventually
) -> AsyncIterator[Hall]:
    room = f"hall-{uuid.uuid4().hex[:8]}"
    async with People(livekit) as people, api.LiveKitAPI(live_server.url, KEY, SECRET) as lk:
        await people.join(Person("ann", width=320, height=180, hz=1000), room)
        yield Hall(live_server, lk, people, room, data_dir, eventually)


async def test_a_composition_in_all_forms(hall: Hall) -> None:
    """One encode; names, sizes and times as LiveKit has them.

    LK-61, LK-62, LK-73, LK-74, LK-75, LK-76, LK-84, LK-85, LK-86, LK-87.
    """
    info = await hall.lk.egress.start_room_composite_egress(
        pb.RoomCompositeEgressRequest(
            room_name=hall.room,
            layout="speaker",
            advanced=ADVANCED,
            file_outputs=[pb.EncodedFileOutput(filepath="files/{room_name}-{time}")],
            segment_outputs=[
                pb.SegmentedFileOutput(
                    filename_prefix="hls/{room_name}/part", playlist_name="all", live_playlist_name="now",
                    segment_duration=1,
                )
            ],
            image_outputs=[pb.ImageOutput(capture_interval=1, filename_prefix="shots/{room_name}")],
        )
    )  # fmt: skip
    done = await hall.recorded(info, 3)
    file = done.file_results[0]
    assert file.filename.startswith(f"files/{hall.room}-2")
    assert file.filename.endswith(".mp4")
    data = hall.object(Path(file.filename).name)
    assert len(data) == file.size
    media = decoded(data)
    assert media.luma[0].shape == (360, 640)
    assert abs(len(media.times) / 15 - file.duration / 1e9) < 0.15
    assert done.started_at <= file.started_at < file.ended_at <= done.ended_at
    segments = done.segment_results[0]
    assert segments.playlist_name == f"hls/{hall.room}/all.m3u8"
    assert segments.live_playlist_name == f"hls/{hall.room}/now.m3u8"
    assert segments.segment_count >= 3
    playlist = hall.object("all.m3u8").decode()
    assert playlist.count("#EXTINF") == segments.segment_count
    assert "part_00000.ts" in playlist
    assert playlist.rstrip().endswith("#EXT-X-ENDLIST")
    assert done.image_results[0].image_count >= 2
    assert hall.object(f"{hall.room}_00000.jpeg").startswith(b"\xff\xd8")
    assert done.details == "End reason: StopEgress API"
    assert done.manifest_location
    assert done.WhichOneof("result") is None


async def test_participants_and_tracks(hall: Hall) -> None:
    """LK-20, LK-31, LK-67: facts that are known only in the room are in the names."""

    async def published() -> dict[str, str] | None:
        listed = await hall.lk.room.list_participants(room_pb.ListParticipantsRequest(room=hall.room))
        tracks = {
            models_pb.TrackType.Name(track.type): track.sid
            for one in listed.participants
            for track in one.tracks
        }
        return tracks if len(tracks) == 2 else None

    tracks = await hall.eventually(published)
    audio, video = tracks["AUDIO"], tracks["VIDEO"]
    composed = await hall.lk.egress.start_participant_egress(
        pb.ParticipantEgressRequest(
            room_name=hall.room, identity="ann", advanced=ADVANCED,
            file_outputs=[pb.EncodedFileOutput(filepath="p/{publisher_identity}-{room_name}")],
        )
    )  # fmt: skip
    sound = await hall.lk.egress.start_track_egress(
        pb.TrackEgressRequest(
            room_name=hall.room, track_id=audio,
            file=pb.DirectFileOutput(filepath="t/{track_type}-{track_source}-{track_id}"),
        )
    )  # fmt: skip
    picture = await hall.lk.egress.start_track_egress(
        pb.TrackEgressRequest(room_name=hall.room, track_id=video, file=pb.DirectFileOutput())
    )
    first, second, third = await asyncio.gather(
        *(hall.recorded(one, 2) for one in (composed, sound, picture))
    )
    assert first.file_results[0].filename == f"p/ann-{hall.room}.mp4"
    assert second.file_results[0].filename == f"t/audio-microphone-{audio}.ogg"
    assert third.file_results[0].filename.startswith(f"{video}-2")
    assert third.file_results[0].filename.endswith(".webm")
    assert decoded(hall.object(f"audio-microphone-{audio}.ogg")).codecs == ("opus",)


async def test_webhooks_of_the_request(hall: Hall) -> None:
    """LK-137, LK-139: from the server itself, in order, verified by LiveKit's receiver."""
    async with Sink() as sink:
        info = await hall.lk.egress.start_room_composite_egress(
            pb.RoomCompositeEgressRequest(
                room_name=hall.room, advanced=ADVANCED, file_outputs=[pb.EncodedFileOutput()],
                webhooks=[api.WebhookConfig(url=sink.url, signing_key=KEY)],
            )
        )  # fmt: skip
        await hall.recorded(info, 1)

        def ended() -> bool:
            return any(json.loads(one.body)["event"] == "egress_ended" for one in sink.received)

        await hall.eventually(ended)
        received = list(sink.received)
    receiver = api.WebhookReceiver(api.TokenVerifier(KEY, SECRET))
    events = [receiver.receive(one.body.decode(), one.headers["Authorization"]) for one in received]
    told = [(one.event, one.egress_info.status) for one in events]
    assert told[0] == ("egress_started", pb.EGRESS_STARTING)
    assert ("egress_updated", pb.EGRESS_ACTIVE) in told
    assert ("egress_updated", pb.EGRESS_ENDING) in told
    assert told[-1] == ("egress_ended", pb.EGRESS_COMPLETE)
    assert events[-1].egress_info.file_results[0].size > 0


async def test_a_failed_destination_is_told(hall: Hall) -> None:
    """2.4, LK-51: nobody listens at the address; the file beside it is complete."""
    url = f"rtmp://127.0.0.1:{free_port()}/live/the-stream-key"
    info = await hall.lk.egress.start_room_composite_egress(
        pb.RoomCompositeEgressRequest(
            room_name=hall.room,
            advanced=ADVANCED,
            file_outputs=[pb.EncodedFileOutput(filepath="beside")],
            stream_outputs=[pb.StreamOutput(protocol=pb.RTMP, urls=[url])],
        )
    )

    async def failed() -> bool:
        request = pb.ListEgressRequest(egress_id=info.egress_id)
        now = (await hall.lk.egress.list_egress(request)).items[0]
        return now.stream_results[0].status == pb.StreamInfo.FAILED

    await hall.eventually(failed, within=40)
    done = await hall.recorded(info, 1)
    assert done.stream_results[0].error
    assert "the-stream-key" not in str(done)
    assert done.file_results[0].filename == "beside.mp4"


async def test_a_room_that_records_itself(hall: Hall) -> None:
    """5.5: the composition begins with the room, a track with its publication, both end with the room."""
    name = f"self-{hall.room}"
    file = pb.EncodedFileOutput(filepath="self/{room_name}")
    composite = pb.RoomCompositeEgressRequest(advanced=ADVANCED, file_outputs=[file])
    tracks = pb.AutoTrackEgress(filepath="self/{room_name}-{track_type}-{track_id}")
    asked = room_pb.RoomEgress(room=composite, tracks=tracks)
    await hall.lk.room.create_room(room_pb.CreateRoomRequest(name=name, egress=asked))
    await hall.people.join(Person("eve", width=320, height=180), name)

    async def running() -> list[pb.EgressInfo]:
        listed = (await hall.lk.egress.list_egress(pb.ListEgressRequest(room_name=name))).items
        active = [one for one in listed if one.status == pb.EGRESS_ACTIVE]
        return active if len(active) == 3 else []

    egresses: list[pb.EgressInfo] = await hall.eventually(running, within=40)
    assert sorted(one.WhichOneof("request") or "" for one in egresses) == ["room_composite", "track", "track"]
    await hall.lk.room.delete_room(room_pb.DeleteRoomRequest(room=name))
    done = [await hall.reaches(one.egress_id, pb.EGRESS_COMPLETE) for one in egresses]
    assert {one.details for one in done} == {"End reason: Source closed"}
    names = {one.file_results[0].filename for one in done}
    assert f"self/{name}.mp4" in names
    assert sum(one.startswith(f"self/{name}-audio-TR_") for one in names) == 1
    assert sum(one.startswith(f"self/{name}-video-TR_") for one in names) == 1


@pytest.mark.skipif(bool(missing_programs()), reason=f"web egress needs {' '.join(missing_programs())}")
async def test_pages(hall: Hall) -> None:
    """LK-12, LK-37, 5.2: any page, and a template for the room, in a browser."""
    page = '<body style="margin:0;background:rgb(200,40,40)"><script>console.log("START_RECORDING")</script>'
    with bound_socket() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with serving(Starlette(routes=[Route("/{any:path}", lambda _: HTMLResponse(page))]), listener):
            web = await hall.lk.egress.start_web_egress(
                pb.WebEgressRequest(
                    url=f"{url}/page", advanced=ADVANCED, await_start_signal=True,
                    file_outputs=[pb.EncodedFileOutput(filepath="pages/web")],
                )
            )  # fmt: skip
            assert (web.room_id, web.source_type) == ("", pb.EGRESS_SOURCE_TYPE_WEB)
            done = await hall.recorded(web, 1)
            template = await hall.lk.egress.start_room_composite_egress(
                pb.RoomCompositeEgressRequest(
                    room_name=hall.room, custom_base_url=f"{url}/template", advanced=ADVANCED,
                    file_outputs=[pb.EncodedFileOutput(filepath="pages/template")],
                )
            )  # fmt: skip
            await hall.recorded(template, 1)
    assert done.web.url == f"{url}/page"
    for name in ("web.mp4", "template.mp4"):
        media = decoded(hall.object(name))
        assert media.luma[-1].shape == (360, 640)
        # The page's red, and nothing of the browser around it.
        assert media.luma[-1].std() < 3


@pytest.mark.skipif(not (ROOT / "web/vendor/hls.min.js").exists(), reason="hls.js is not bundled: make setup")
async def test_a_live_playlist_plays_in_a_browser_while_it_runs(hall: Hall) -> None:
    """Issue section 7 and 8: our player page shows the room while it is recorded."""
    info = await hall.lk.egress.start_room_composite_egress(
        pb.RoomCompositeEgressRequest(
            room_name=hall.room,
            layout="grid",
            segment_outputs=[pb.SegmentedFileOutput(filename_prefix="live/{room_name}", segment_duration=1)],
            advanced=ADVANCED,
        )
    )

    async def address() -> str:
        listed = await hall.lk.egress.list_egress(pb.ListEgressRequest(egress_id=info.egress_id))
        return next((one.playlist_location for one in listed.items[0].segment_results), "")

    playlist = await hall.eventually(address, within=40)
    async with opened_page(f"{hall.server.url}/player/?src={quote(playlist, safe='')}") as page:

        async def plays() -> bool:
            seen = await page.value(
                "(({currentTime, videoWidth, error}) => [currentTime, videoWidth, error && error.message])"
                "(document.getElementById('video'))"
            )
            assert seen[2] is None
            shown = await page.value(
                "[document.getElementById('state'), document.getElementById('levels')].map(e => e.textContent)"
            )
            assert shown == ["Playing 640×360", ""]
            return bool(seen[0] > 1.0 and seen[1] == 640)

        await hall.eventually(plays, within=40)
        listed = await hall.lk.egress.list_egress(pb.ListEgressRequest(egress_id=info.egress_id))
        assert listed.items[0].status == pb.EGRESS_ACTIVE
    await hall.lk.egress.stop_egress(pb.StopEgressRequest(egress_id=info.egress_id))
    ended = await hall.reaches(info.egress_id, pb.EGRESS_COMPLETE)
    assert ended.segment_results[0].segment_count >= 2
