"""The tour of `make demo`: a clip becomes a stream twice, people meet in a room, and all of it is shown to be true."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import grpc
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.syntax import Syntax
from rich.table import Table

from adapters.ffmpeg.audit import audit
from adapters.ffmpeg.binary import resolve_ffmpeg
from adapters.livekit.binary import INSTALL
from generated.baxcloud.v1 import video_conversion_pb2 as pb
from generated.baxcloud.v1.video_conversion_pb2_grpc import VideoConversionServiceStub
from generated.baxcloud.v1.video_conversion_twirp import AsyncVideoConversionServiceClient
from server.bootstrap import ADMIN_TOKEN_FILE
from server.rpc.json_codec import REST_JSON
from server.webhooks.verification import verify_body
from tools.demo_inbox import Inbox, TourFailed, opened_inbox
from tools.demo_recording import RecordingFailed, record, shown_manifest
from tools.demo_rooms import (
    ROOM,
    ROOM_EVENTS,
    Call,
    People,
    RoomFailed,
    all_came,
    has_livekit,
    is_about,
    join_link,
    meet,
    mint,
    present_people,
    shown_events,
)

CLIP_SEC = 10
FORMATS = ("360p", "480p", "720p")
JOB_TIMEOUT_SEC = 180


@dataclass(frozen=True, slots=True)
class DemoServer:
    """The server under demonstration."""

    url: str
    grpc_address: str
    project_id: str
    api_key: str = field(repr=False)
    data_dir: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}", "x-project-id": self.project_id}


class Tour:
    """Runs once; raises TourFailed at the first thing that is not as it should be."""

    def __init__(self, server: DemoServer, console: Console, people: People) -> None:
        self._server = server
        self._console = console
        self._people = people
        self._steps = 0

    async def run(self) -> None:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="bax-demo-") as folder:
            clip = await self._make_clip(Path(folder))
            async with (
                aiohttp.ClientSession(headers=self._server.headers) as http,
                opened_inbox(clip) as inbox,
            ):
                hook = await self._register_webhook(http, inbox)
                try:
                    job = await self._convert_by_url(http, f"{inbox.address}/clip.mp4")
                    self._list_objects(job)
                    await self._check_webhook(inbox, hook["secret"], job)
                    await self._compare_transports(http, job)
                    await self._audit(job)
                    await self._convert_by_upload(clip)
                    join = await self._meet(http, inbox, hook["secret"])
                    recorded = await self._record(http, Path(folder)) if join is not None else None
                finally:
                    await self._call(http, "DELETE", f"/v1/webhooks/{hook['id']}")
        self._console.print(f"\n[bold green]The tour is done[/] in {time.monotonic() - began:.0f} s. Open:\n")
        self._links(job, join, recorded)

    # --- the steps

    async def _make_clip(self, folder: Path) -> Path:
        self._step(f"A clip of {CLIP_SEC} s with sound, made by FFmpeg")
        clip = folder / "clip.mp4"
        command = (
            resolve_ffmpeg(), "-nostdin", "-v", "error",
            "-f", "lavfi", "-i", f"testsrc2=size=1280x720:rate=30:duration={CLIP_SEC}",
            "-f", "lavfi", "-i", f"sine=frequency=330:beep_factor=4:sample_rate=48000:duration={CLIP_SEC}",
            "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", str(clip),
        )  # fmt: skip
        await _run(*command)
        self._say(f"1280×720, 30 fps, {_size(clip.stat().st_size)}")
        return clip

    async def _register_webhook(self, http: aiohttp.ClientSession, inbox: Inbox) -> dict[str, Any]:
        self._step("A webhook for everything that happens to conversions and in rooms")
        body = {"url": f"{inbox.address}/hook", "events": ["video.conversion.*", *ROOM_EVENTS]}
        hook = await self._call(http, "POST", "/v1/webhooks", body)
        self._say(f"POST /v1/webhooks → {hook['id']}, its secret is shown this once")
        return hook

    async def _convert_by_url(self, http: aiohttp.ClientSession, source: str) -> dict[str, Any]:
        self._step("Convert by URL, with the quick start's curl")
        body = {"inputUrl": source, "outputFormats": list(FORMATS), "metadata": {"userId": "u_42"}}
        shown = (
            f"curl -X POST \\\n  {self._server.url}/video/convert \\\n"
            '  -H "Authorization: Bearer $BAX_API_KEY" \\\n'
            f'  -H "X-Project-Id: {self._server.project_id}" \\\n'
            '  -H "Content-Type: application/json" \\\n'
            f"  -d '{json.dumps(body)}'"
        )
        self._show(shown, "bash")
        job = (
            await self._curl(body)
            if shutil.which("curl")
            else await self._call(http, "POST", "/video/convert", body)
        )
        job = await self._follow(http, job["id"])
        self._show(json.dumps(job, indent=2, ensure_ascii=False), "json")
        return job

    def _list_objects(self, job: Mapping[str, Any]) -> None:
        self._step("The objects in the data directory")
        folder = self._server.data_dir / "objects" / self._server.project_id / job["id"]
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        table = Table("object", "files", "size", box=None, pad_edge=False, header_style="dim")
        for name, group in _grouped(folder, files):
            table.add_row(name, str(len(group)), _size(sum(path.stat().st_size for path in group)))
        self._console.print(table)
        if not files:
            raise TourFailed(f"there are no objects in {folder}")

    async def _check_webhook(self, inbox: Inbox, secret: str, job: Mapping[str, Any]) -> None:
        self._step("The signed webhook")
        headers, body = await inbox.wait_for("video.conversion.completed", job["id"])
        if not verify_body(body, headers["X-BaxCloud-Signature"], [secret]):
            raise TourFailed("the webhook's signature does not fit")
        envelope = json.loads(body)
        if envelope["data"]["outputUrl"] != job["outputUrl"]:
            raise TourFailed("the webhook names another stream than the API")
        self._say(f"{envelope['event']}, eventId {envelope['eventId']}, HMAC-SHA256 of the raw body fits")

    async def _compare_transports(self, http: aiohttp.ClientSession, job: Mapping[str, Any]) -> None:
        self._step("The same job over gRPC and Twirp")
        request = pb.GetConversionJobRequest(job_id=job["id"])
        metadata = tuple(self._server.headers.items())
        async with grpc.aio.insecure_channel(self._server.grpc_address) as channel:
            over_grpc = await VideoConversionServiceStub(channel).GetConversionJob(request, metadata=metadata)
        async with AsyncVideoConversionServiceClient(self._server.url) as client:
            over_twirp = await client.GetConversionJob(request, headers=self._server.headers)
        over_rest = await self._call(http, "GET", f"/video/jobs/{job['id']}")
        for name, reply in (("gRPC", over_grpc), ("Twirp", over_twirp)):
            if REST_JSON.encode(reply) != over_rest:
                raise TourFailed(f"{name} and REST show different jobs")
        self._say("gRPC, Twirp and REST show the same job")

    async def _audit(self, job: Mapping[str, Any]) -> None:
        self._step("The HLS checks, over what a player would fetch")
        base = job["outputUrl"].removesuffix("master.m3u8")
        findings = await asyncio.to_thread(audit, lambda key: _fetch(base + key), renditions=FORMATS)
        if findings:
            raise TourFailed("; ".join(map(str, findings)))
        self._say(
            "bandwidths within 10 %, codecs, sizes, frame rates, aligned IDR pictures, segment lengths: all hold"
        )

    async def _convert_by_upload(self, clip: Path) -> None:
        self._step("Convert an upload, with the command line")
        arguments = ("convert", str(clip), "--format", "360p")
        self._console.print(f"[dim]$[/] bax {' '.join(arguments)}", soft_wrap=True)
        environment = {
            **os.environ,
            "BAX_URL": self._server.url,
            "BAX_API_KEY": self._server.api_key,
            "BAX_PROJECT_ID": self._server.project_id,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from server.cli import main; main()", *arguments, env=environment
        )
        if status := await process.wait():
            raise TourFailed(f"bax convert ended with status {status}")

    async def _meet(self, http: aiohttp.ClientSession, inbox: Inbox, secret: str) -> str | None:
        """The link for joining them; None without a livekit-server."""
        self._step("A room, and three people who send picture and sound")
        if not has_livekit():
            self._say(f"left out, as there is no livekit-server here: run `{INSTALL}`")
            return None
        call = partial(self._call, http)
        try:
            room = await meet(call, self._people)
            self._say(f"POST /v1/rooms → {room['name']}, {room['sid']}")
            await self._list_people(call)
            await inbox.wait_until(
                lambda: all_came(inbox.about(lambda one: is_about(one, room["sid"]))), "of all that happened"
            )
            for line in shown_events(inbox.about(lambda one: is_about(one, room["sid"])), secret):
                self._say(line)
        except RoomFailed as failed:
            raise TourFailed(str(failed)) from failed
        return join_link(self._server.url, await mint(call, "Guest"))

    async def _list_people(self, call: Call) -> None:
        self._say(f"GET /v1/rooms/{ROOM}/participants")
        table = Table("identity", "name", "state", "tracks", box=None, pad_edge=False, header_style="dim")
        for one in await present_people(call):
            tracks = ", ".join(sorted(track["source"].lower() for track in one["tracks"]))
            table.add_row(one["identity"], one["name"], one["state"], tracks)
        self._console.print(table)

    async def _record(self, http: aiohttp.ClientSession, folder: Path) -> dict[str, str]:
        """Links to what became of it."""
        self._step("The room recorded and streamed, by LiveKit's own SDK pointed at this server")
        call = partial(self._call, http)
        try:
            recorded = await record(self._server.url, await self._livekit_key(), call, folder, self._say)
        except RecordingFailed as failed:
            raise TourFailed(str(failed)) from failed
        self._say(f"the RTMP server got {recorded.streamed}")
        self._show(json.dumps(shown_manifest(recorded.manifest), indent=2), "json")
        self._step("The recording handed to the converter, in one call")
        recording_id = recorded.recording["id"]
        job = await call("POST", f"/v1/recordings/{recording_id}/convert", {"outputFormats": list(FORMATS)})
        job = await self._follow(http, job["id"])
        self._say(f"{job['durationSec']} s in {job['segmentsCount']} segments, {len(FORMATS)} renditions")
        return {
            "the recording": recorded.recording["fileUrl"],
            "its live HLS, now ended": self._player(recorded.live_url),
            "the recording's ladder": self._player(job["outputUrl"]),
        }

    async def _livekit_key(self) -> dict[str, Any]:
        """A LiveKit-style pair of the project, by the operator's call."""
        token = (self._server.data_dir / ADMIN_TOKEN_FILE).read_text().strip()
        path = f"/v1/projects/{self._server.project_id}/livekit-keys"
        async with aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as http:
            return await self._call(http, "POST", path, {"name": "demo"})

    def _player(self, playlist: str) -> str:
        return f"{self._server.url}/player/?src={quote(playlist, safe='')}"

    def _links(self, job: Mapping[str, Any], join: str | None, recorded: Mapping[str, str] | None) -> None:
        url = self._server.url
        for name, value in (
            ("the stream in the player", self._player(job["outputUrl"])),
            *([("the room, as a guest", join)] if join else []),
            *(recorded or {}).items(),
            ("API docs", f"{url}/docs"),
            ("gRPC, with reflection", self._server.grpc_address),
            ("API key", f"in {self._server.data_dir / 'demo.key'}"),
        ):
            self._console.print(f"  {name:25} {value}", soft_wrap=True)

    # --- how they do it

    async def _follow(self, http: aiohttp.ClientSession, job_id: str) -> dict[str, Any]:
        """Shows the progress that the server streams; the finished job."""
        bar = Progress(
            TextColumn("  {task.fields[stage]:12}"),
            BarColumn(bar_width=40),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[speed]}"),
            console=self._console,
        )
        job: dict[str, Any] = {}
        with bar:
            task = bar.add_task("", total=100, stage="waiting", speed="")
            async with asyncio.timeout(JOB_TIMEOUT_SEC):
                async for job in self._events(http, job_id):
                    progress = job.get("progress", {})
                    speed = f"{progress['speed']:.1f}× real time" if "speed" in progress else ""
                    bar.update(
                        task,
                        completed=100 if job["status"] == "COMPLETED" else progress.get("percent"),
                        stage=progress.get("stage", job["status"].lower()),
                        speed=speed,
                    )
        if job.get("status") != "COMPLETED":
            raise TourFailed(f"the job ended as {job.get('status')}: {job.get('errorMessage', '')}")
        return job

    async def _events(self, http: aiohttp.ClientSession, job_id: str) -> AsyncIterator[dict[str, Any]]:
        async with http.get(f"{self._server.url}/video/jobs/{job_id}/events") as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    yield self._checked(json.loads(line[6:]), "watching the job")

    async def _curl(self, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = [f"-H{name}: {value}" for name, value in self._server.headers.items()]
        output = await _run(
            "curl", "-sS", "-X", "POST", f"{self._server.url}/video/convert",
            *headers, "-H", "Content-Type: application/json", "-d", json.dumps(body),
        )  # fmt: skip
        return self._checked(json.loads(output), "POST /video/convert")

    async def _call(
        self, http: aiohttp.ClientSession, verb: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        async with http.request(verb, self._server.url + path, json=body) as answer:
            text = await answer.text()
            return self._checked(json.loads(text) if text else {}, f"{verb} {path}")

    def _checked(self, reply: dict[str, Any], call: str) -> dict[str, Any]:
        if reply.get("success") is False:
            raise TourFailed(f"{call}: {reply['error']['message']}")
        return reply

    def _step(self, title: str) -> None:
        self._steps += 1
        self._console.print(f"\n[bold cyan]{self._steps}[/] [bold]{title}[/]")

    def _show(self, code: str, language: str) -> None:
        # Not wrapped, so that addresses can be clicked and commands copied.
        text = Syntax("", language, background_color="default").highlight(code)
        self._console.print(text, soft_wrap=True, end="")

    def _say(self, text: str) -> None:
        self._console.print(f"  {text}", soft_wrap=True)


async def _run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise TourFailed(f"{Path(command[0]).name} failed: {errors.decode(errors='replace').strip()}")
    return output.decode()


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        content: bytes = answer.read()
        return content


def _grouped(folder: Path, files: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    """Files by name, segments of one rendition together."""

    def name(path: Path) -> str:
        shown = path.relative_to(folder).as_posix()
        return f"{shown.rpartition('/')[0]}/segment_*.ts" if path.name.startswith("segment_") else shown

    for shown, group in groupby(files, key=name):
        yield shown, list(group)


def _size(size: float) -> str:
    return f"{size / 1024:.0f} KiB" if size < 1024**2 else f"{size / 1024**2:.1f} MiB"
