"""`bax record`: a room becomes a file, a stream, or both, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
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
_PATIENCE_SEC = 60.0


def record(
    room: Annotated[str, typer.Argument(help="The room's name.")],
    layout: Annotated[str | None, typer.Option(help="grid, speaker, pip or default. [default]")] = None,
    quality: Annotated[str | None, typer.Option(help="480p, 720p, 1080p or 4k. [720p]")] = None,
    file_type: Annotated[
        str | None, typer.Option("--type", help="MP4, OGG or WEBM. [what -o ends in, else MP4]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Also download the file, to here: .mp4, .ogg or .webm."),
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
    if output is not None:
        file_type = file_type_of(output, file_type)
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


def file_type_of(output: Path, wanted: str | None) -> str:
    """The `file.fileType` that `output` ends in, in any case.

    Raise typer.BadParameter, naming the option, for a suffix that is none, and for one that is not the `wanted` type.
    """
    from server.egress.qualities import FORMATS

    found = output.suffix[1:].upper()
    if found not in FORMATS:
        known = ", ".join(f".{name.lower()}" for name in sorted(FORMATS))
        raise typer.BadParameter(f"{output.name} must end in one of {known}", param_hint="-o")
    if wanted is not None and wanted.upper() != found:
        raise typer.BadParameter(f"{wanted} is not what -o ends in ({output.suffix})", param_hint="--type")
    return found


async def answered(
    ask: Callable[[], Awaitable[dict[str, Any]]],
    *,
    patience_sec: float = _PATIENCE_SEC,
    pause_sec: float = _POLL_SEC,
) -> dict[str, Any]:
    """What `ask` gives, asked again while nobody answers: the egress does not need the server that is asked.

    Raise Refused at once for what the server does refuse, Failed when `patience_sec` after the first failure there is
    still no answer.
    """
    from server.cli.api import Refused

    deadline: float | None = None
    while True:
        try:
            return await ask()
        except Failed as failed:
            if isinstance(failed, Refused) and failed.code != "UNAVAILABLE":
                raise
            now = time.monotonic()
            deadline = now + patience_sec if deadline is None else deadline
            if now >= deadline:
                raise
        await asyncio.sleep(pause_sec)


@contextmanager
def _egress_named(egress_id: str) -> Iterator[None]:
    """Whoever loses sight of an egress is told its id and how to go on, also after a second Ctrl-C."""
    from server.cli.connection import server_url

    path = f"{server_url() or ''}/v1/egress/{egress_id}"
    how = f"egress {egress_id} may go on: `GET {path}` shows it and its file, `POST {path}/stop` stops it"
    try:
        yield
    except asyncio.CancelledError:
        note(how)
        raise
    except Failed as failed:
        raise Failed(f"{failed}\n{how}") from failed


async def _record(
    request: pb.StartEgressRequest, output: Path | None, seconds: float | None
) -> dict[str, Any]:
    from generated.baxcloud.v1 import egress_pb2 as pb
    from server.cli.connection import open_api

    async with open_api(None) as api, _interrupted() as interrupted:
        egress = await api.call("EgressService/StartEgress", request)
        egress_id = egress["id"]
        with _egress_named(egress_id):
            egress = await _watch(api, egress_id, interrupted, seconds)
            if egress["status"] == _RUNNING:
                stop = pb.StopEgressRequest(egress_id=egress_id)
                # Asked twice it answers the same.
                egress = await answered(lambda: api.call("EgressService/StopEgress", stop))
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

    request = pb.GetEgressRequest(egress_id=egress_id)
    return await answered(lambda: api.call("EgressService/GetEgress", request))


async def _download(api: Api, recording_id: str, output: Path) -> None:
    from generated.baxcloud.v1 import egress_pb2 as pb

    request = pb.GetRecordingDownloadUrlRequest(recording_id=recording_id)
    address = await answered(lambda: api.call("EgressService/GetRecordingDownloadUrl", request))
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
