"""The part of the tour that records the room: one encode becomes a file, a live HLS stream and an RTMP stream.

It is started, steered and ended by LiveKit's own Python SDK, pointed at this server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.ffmpeg.binary import resolve_ffmpeg
from tools.demo_rooms import ROOM, Call

if TYPE_CHECKING:
    from livekit import api

RECORD_SEC = 15
_LIVE_SEC = 20.0
_END_SEC = 30.0
_SINK_END_SEC = 5.0
_POLL_SEC = 0.1


class RecordingFailed(Exception):
    """The room was not recorded or streamed as it should be."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What came of it. `recording` and `manifest` as REST shows them."""

    recording: dict[str, Any]
    manifest: dict[str, Any]
    live_url: str
    streamed: str


class Sink:
    """An RTMP server for one stream, by FFmpeg, which keeps what it gets."""

    def __init__(self, url: str, file: Path) -> None:
        self.url = url
        self._file = file

    def received(self) -> str:
        """Raise RecordingFailed if there is no picture."""
        import av

        try:
            with av.open(str(self._file)) as stream:
                video = stream.streams.video[0]
                frames = sum(1 for packet in stream.demux(video) if packet.size)
                size = f"{video.width}×{video.height}"
        except (av.error.FFmpegError, OSError, IndexError) as error:
            raise RecordingFailed("the RTMP server got no picture") from error
        return f"{frames} pictures of {size}, H.264 and AAC, {self._file.stat().st_size / 1e6:.1f} MB"


@asynccontextmanager
async def rtmp_sink(folder: Path) -> AsyncIterator[Sink]:
    """Listens while the block lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sink = Sink(f"rtmp://127.0.0.1:{port}/live/demo", folder / "streamed.flv")
    process = await asyncio.create_subprocess_exec(
        resolve_ffmpeg(), "-v", "error", "-f", "flv", "-listen", "1", "-timeout", "60", "-i", sink.url,
        "-c", "copy", str(folder / "streamed.flv"),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield sink
        # It has read to the end of the stream then, and written the end of its file.
        async with asyncio.timeout(_SINK_END_SEC):
            await process.wait()
    except TimeoutError:
        raise RecordingFailed("the RTMP stream did not end") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def record(
    server_url: str, key: dict[str, Any], call: Call, folder: Path, say: Callable[[str], None]
) -> Recorded:
    """`key` is a LiveKit-style pair of the project. Raise RecordingFailed."""
    from livekit import api

    async with (
        api.LiveKitAPI(server_url, key["apiKey"], key["apiSecret"]) as livekit,
        rtmp_sink(folder) as sink,
    ):
        egress = livekit.egress
        info = await egress.start_room_composite_egress(
            api.RoomCompositeEgressRequest(
                room_name=ROOM,
                layout="grid",
                file_outputs=[api.EncodedFileOutput(filepath="{room_name}-{time}.mp4")],
                segment_outputs=[
                    api.SegmentedFileOutput(
                        filename_prefix="live/{room_name}-{time}",
                        live_playlist_name="live.m3u8",
                        segment_duration=2,
                    )
                ],
                stream_outputs=[api.StreamOutput(protocol=api.StreamProtocol.RTMP, urls=[sink.url])],
            )
        )
        say(f"egress.start_room_composite_egress(…) → {info.egress_id}, {_status(info)}")
        live = await _until(
            egress, info.egress_id, lambda one: bool(_live(one)), "a live playlist", _LIVE_SEC
        )
        say(f"live HLS while it runs: {_live(live)}")
        await asyncio.sleep(RECORD_SEC / 2)
        await egress.update_layout(api.UpdateLayoutRequest(egress_id=info.egress_id, layout="speaker"))
        say('egress.update_layout(layout="speaker")')
        await asyncio.sleep(RECORD_SEC / 2)
        ending = await egress.stop_egress(api.StopEgressRequest(egress_id=info.egress_id))
        say(f"egress.stop_egress() → {_status(ending)}")
        ended = await _until(egress, info.egress_id, lambda one: one.ended_at > 0, "its end", _END_SEC)
        if ended.status != api.EgressStatus.EGRESS_COMPLETE:
            raise RecordingFailed(f"it ended as {_status(ended)}: {ended.error}")
    file = ended.file_results[0]
    say(f"{_status(ended)}: {file.filename}, {file.duration / 1e9:.1f} s, {file.size / 1e6:.1f} MB")
    recordings = (await call("GET", f"/v1/recordings?roomName={ROOM}&limit=1"))["items"]
    if not recordings or recordings[0]["egressId"] != ended.egress_id:
        raise RecordingFailed("the recording is not listed")
    manifest = await call("GET", f"/v1/recordings/{recordings[0]['id']}/manifest")
    return Recorded(recordings[0], manifest, ended.segment_results[0].playlist_location, sink.received())


def shown_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What of it fits on a screen."""
    objects = [one for one in manifest["objects"] if not one["key"].endswith(".ts")]
    counted = {"tracks": len(manifest["tracks"]), "segments": len(manifest["objects"]) - len(objects)}
    return {**manifest, "objects": objects, **counted}


async def _until(
    egress: api.egress_service.EgressService,
    egress_id: str,
    condition: Callable[[api.EgressInfo], bool],
    what: str,
    timeout_sec: float,
) -> api.EgressInfo:
    from livekit import api

    try:
        async with asyncio.timeout(timeout_sec):
            while True:
                listed = await egress.list_egress(api.ListEgressRequest(egress_id=egress_id))
                if condition(listed.items[0]) or listed.items[0].ended_at:
                    return listed.items[0]
                await asyncio.sleep(_POLL_SEC)
    except TimeoutError:
        raise RecordingFailed(f"there was no {what} within {timeout_sec:.0f} s") from None


def _live(info: api.EgressInfo) -> str:
    return next((one.playlist_location for one in info.segment_results if one.segment_count), "")


def _status(info: api.EgressInfo) -> str:
    from livekit import api

    return str(api.EgressStatus.Name(info.status))
