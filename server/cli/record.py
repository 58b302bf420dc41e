"""`bax record`: a room becomes a file, a stream, or both, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.output import Failed, note, print_fields, print_json

if TYPE_CHECKING:
    from generated.baxcloud.v1 import egress_pb2 as pb
    from server.cli.api import Api

_POLL_SEC = 0.5
_BLOCK_BYTES = 1 << 20
_DOWNLOAD_TIMEOUT_SEC = 60
_RUNNING = "STARTED"


def record(
    room: Annotated[str, typer.Argument(help="The room's name.")],
    layout: Annotated[str | None, typer.Option(help="grid, speaker, pip or default. [default]")] = None,
    quality: Annotated[str | None, typer.Option(help="480p, 720p, 1080p or 4k. [720p]")] = None,
    file_type: Annotated[str | None, typer.Option("--type", help="MP4, OGG or WEBM. [MP4]")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also download the file, to here.")
    ] = None,
    urls: Annotated[
        list[str] | None, typer.Option("--stream", help="Also stream to this rtmp(s):// address; repeatable.")
    ] = None,
    no_file: Annotated[bool, typer.Option("--no-file", help="Only stream.")] = False,
    seconds: Annotated[
        float | None, typer.Option("--for", help="Stop after this many seconds. [Ctrl-C stops]", min=0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished egress as JSON.")] = False,
) -> None:
    """Record a room until Ctrl-C, until it is over, or for some seconds.

    Uses the server at BAX_URL (with BAX_API_KEY and BAX_PROJECT_ID); without BAX_URL the one that runs on this machine's
    data directory.
    """
    from generated.baxcloud.v1 import egress_pb2 as pb

    if no_file and (output or not urls):
        raise typer.BadParameter("needs --stream, and leaves nothing for -o", param_hint="--no-file")
    request = pb.StartEgressRequest(
        room_name=room,
        mode="stream" if no_file else "both" if urls else "record",
        layout=layout,
        quality=quality,
        file=pb.FileOptions(file_type=file_type) if not no_file else None,
        stream=pb.StreamOptions(urls=urls) if urls else None,
    )
    egress = asyncio.run(_record(request, output, seconds))
    if as_json:
        print_json(egress)
    else:
        _show(egress, output)
    if egress["status"] != "COMPLETED":
        why = egress.get("errorMessage", "")
        raise Failed(f"egress {egress['id']} failed: {why} ({egress.get('errorCode', '')})")


async def _record(
    request: pb.StartEgressRequest, output: Path | None, seconds: float | None
) -> dict[str, Any]:
    from generated.baxcloud.v1 import egress_pb2 as pb
    from server.cli.connection import open_api

    async with open_api(None) as api, _interrupted() as interrupted:
        egress = await api.call("EgressService/StartEgress", request)
        egress_id = egress["id"]
        egress = await _watch(api, egress_id, interrupted, seconds)
        if egress["status"] == _RUNNING:
            stop = pb.StopEgressRequest(egress_id=egress_id)
            egress = await api.call("EgressService/StopEgress", stop)
        while egress["status"] == _RUNNING:
            await asyncio.sleep(_POLL_SEC)
            egress = await _get(api, egress_id)
        if output is not None and egress["status"] == "COMPLETED":
            await _download(api, egress["recordingId"], output)
        return egress


async def _watch(
    api: Api, egress_id: str, interrupted: asyncio.Event, seconds: float | None
) -> dict[str, Any]:
    """Shows how far it is until it ends, the time is up or somebody presses Ctrl-C."""
    from rich.console import Console

    deadline = None if seconds is None else time.monotonic() + seconds
    with Console(stderr=True).status("starting") as line:
        while True:
            egress = await _get(api, egress_id)
            line.update(_line(egress))
            pause = _POLL_SEC if deadline is None else min(_POLL_SEC, deadline - time.monotonic())
            if egress["status"] != _RUNNING or interrupted.is_set() or pause <= 0:
                return egress
            try:
                async with asyncio.timeout(pause):
                    await interrupted.wait()
            except TimeoutError:
                continue


def _line(egress: Mapping[str, Any]) -> str:
    progress = egress.get("progress")
    if not progress:
        return "waiting for the room"
    minutes, seconds = divmod(progress.get("durationMs", 0) // 1000, 60)
    return (
        f"{'paused' if egress.get('paused') else 'recording'} {minutes}:{seconds:02d}  "
        f"{progress.get('fps', 0):.1f} fps  {progress.get('framesDropped', 0)} dropped  "
        f"{progress.get('bytes', 0) / 1e6:.1f} MB"
    )


async def _get(api: Api, egress_id: str) -> dict[str, Any]:
    from generated.baxcloud.v1 import egress_pb2 as pb

    return await api.call("EgressService/GetEgress", pb.GetEgressRequest(egress_id=egress_id))


async def _download(api: Api, recording_id: str, output: Path) -> None:
    from generated.baxcloud.v1 import egress_pb2 as pb

    address = await api.call(
        "EgressService/GetRecordingDownloadUrl", pb.GetRecordingDownloadUrlRequest(recording_id=recording_id)
    )
    await asyncio.to_thread(_fetch, address["downloadUrl"], output)


def _fetch(url: str, output: Path) -> None:
    from urllib.request import urlopen

    part = output.with_name(output.name + ".part")
    try:
        # The address is the server's own answer, and its scheme is what the server is reached by.
        with urlopen(url, timeout=_DOWNLOAD_TIMEOUT_SEC) as source, part.open("wb") as target:  # noqa: S310
            while block := source.read(_BLOCK_BYTES):
                target.write(block)
        part.replace(output)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Failed(f"{output}: could not be downloaded: {error}") from error


@asynccontextmanager
async def _interrupted() -> AsyncIterator[asyncio.Event]:
    """Set by the first Ctrl-C; the second ends the command, and the egress goes on."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    # The runner's own handler would cancel everything at the first one.
    before = signal.getsignal(signal.SIGINT)

    def on_interrupt() -> None:
        if event.is_set():
            note("the egress goes on; stop it with `POST /v1/egress/<id>/stop`")
            raise KeyboardInterrupt
        event.set()

    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    try:
        yield event
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, before)


def _show(egress: Mapping[str, Any], output: Path | None) -> None:
    progress = egress.get("progress") or {}
    size = egress.get("fileSize")
    print_fields(
        {
            "egress": egress["id"],
            "recording": egress.get("recordingId"),
            "status": egress["status"],
            "file": str(output) if output else egress.get("fileUrl"),
            "duration": f"{egress['durationSec']} s" if "durationSec" in egress else None,
            "size": f"{size / 1e6:.1f} MB" if size else None,
            "frames": _frames(progress),
            "streams": egress.get("destinations"),
        }
    )


def _frames(progress: Mapping[str, Any]) -> str | None:
    if not progress.get("framesComposed"):
        return None
    return (
        f"{progress['framesComposed']} composed, {progress.get('framesRepeated', 0)} repeated, "
        f"{progress.get('framesDropped', 0)} dropped"
    )
