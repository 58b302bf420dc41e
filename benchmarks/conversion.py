"""A whole conversion, download to COMPLETED, against one hand-written FFmpeg command that makes the same outputs."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from adapters.ffmpeg.binary import resolve_ffmpeg
from benchmarks.results import Row, Section, ratio_of, spread
from benchmarks.servers import Server, bax

CLIP_SEC = 60
ROUNDS = 3
TARGET_RATIO = 1.10
TARGET_PLAYABLE_SEC = 1.0
FORMATS = ("720p", "480p", "360p")
_SIZES = {"720p": (1280, 720), "480p": (854, 480), "360p": (640, 360)}
# kbit/s of picture and sound, as the presets have them.
_RATES = {"720p": (2800, 128), "480p": (1400, 128), "360p": (800, 96)}
_FPS, _GOP_SEC = 30, 2
_POLL_SEC = 0.005
_TIMEOUT_SEC = 900.0
# The server runs its encoder at this niceness; so that others on the machine slow both sides alike, so does the floor.
_NICE = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one run: wall, user + system of the whole process tree, until a first segment of every rendition."""

    wall: float
    cpu: float
    playable: float


def run(*, quick: bool) -> Section:
    seconds, rounds = (20, 1) if quick else (CLIP_SEC, ROUNDS)
    ours: list[Cost] = []
    floor: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="bax-bench-") as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", seconds)
        # Both sides find the file and the binary in the page cache.
        warm_up = make_clip(folder / "warm.mp4", 2)
        with _serving(folder) as url, bax(folder / "data", "all") as server:
            _convert(server, f"{url}/{warm_up.name}")
            _by_hand(warm_up, folder / "hand")
            for _ in range(rounds):
                floor.append(_by_hand(clip, folder / "hand"))
                ours.append(_convert(server, f"{url}/{clip.name}"))
    return Section(_rows(ours, floor), _notes(seconds, rounds))


def _rows(ours: list[Cost], floor: list[Cost]) -> list[Row]:
    rows = []
    for what, field in (("wall time, submit → COMPLETED", "wall"), ("CPU, all processes", "cpu")):
        mine = [getattr(one, field) for one in ours]
        theirs = [getattr(one, field) for one in floor]
        ratio = ratio_of(mine, theirs)
        rows.append(
            Row(
                what,
                spread(mine, "s"),
                spread(theirs, "s"),
                f"{ratio:.3f}×",
                f"≤ {TARGET_RATIO:.2f}×",
                ratio <= TARGET_RATIO,
            )
        )
    first, first_by_hand = [one.playable for one in ours], [one.playable for one in floor]
    later = statistics.median(a - b for a, b in zip(first, first_by_hand, strict=True))
    rows.append(
        Row(
            "first playable after submit",
            spread(first, "s", 2),
            spread(first_by_hand, "s", 2),
            f"{later:+.2f} s",
            f"≤ +{TARGET_PLAYABLE_SEC:.1f} s",
            later <= TARGET_PLAYABLE_SEC,
        )
    )
    return rows


def _notes(seconds: int, rounds: int) -> list[str]:
    version = subprocess.run(
        [resolve_ffmpeg(), "-version"], capture_output=True, text=True, check=True
    ).stdout
    return [
        (
            f"A {seconds} s clip, 1920×1080 at {_FPS}/s, about 8 Mbit/s H.264 and AAC (test pattern, noise, a Mandelbrot zoom, "
            f"a tone over pink noise), from an HTTP server on loopback to 360p, 480p and 720p by preset `fast`; {rounds} "
            "turns each. Ours holds the download, the probe, the upload into the data directory, the thumbnail, the check "
            "and the database; CPU is that of `bax serve --role all` and all its children."
        ),
        (
            "By hand: one decode, a cascade of scalers, x264 with the same preset, rates, VBV, GOP and level, two AAC encodes, "
            "three HLS outputs through `tee`, reading the local file, at the same niceness. First playable by hand: the "
            "moment when the playlists of all three name a segment."
        ),
        f"Both run {version.splitlines()[0].partition(' Copyright')[0]}.",
    ]


def make_clip(target: Path, seconds: int) -> Path:
    """Busy enough that neither decoder nor encoder gets anything for free."""
    sources = (
        f"testsrc2=size=1920x1080:rate={_FPS}",
        f"mandelbrot=size=960x540:rate={_FPS}",
        "sine=frequency=440:sample_rate=48000",
        "anoisesrc=color=pink:amplitude=0.1:sample_rate=48000",
    )
    inputs = [argument for source in sources for argument in ("-f", "lavfi", "-i", source)]
    graph = (
        "[0:v]noise=alls=12:allf=t[noisy];[noisy][1:v]overlay=x='480+300*sin(t)':y=270[v];[2:a][3:a]amix=2[a]"
    )
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-b:v", "8M", "-pix_fmt", "yuv420p", "-g", "60"]
    command = [resolve_ffmpeg(), "-nostdin", "-v", "error", "-y", *inputs, "-filter_complex", graph]
    command += ["-map", "[v]", "-map", "[a]", "-t", str(seconds), *codecs, "-c:a", "aac", str(target)]
    subprocess.run(command, check=True, timeout=_TIMEOUT_SEC)
    return target


def command_by_hand(clip: Path) -> list[str]:
    """What a person who knows FFmpeg well would type, run in the output folder."""
    graph = (
        "[0:v]scale=1280:720,split[720][t];[t]scale=854:480,setsar=1,split[480][u];[u]scale=640:360,setsar=1[360];"
        "[0:a]asplit[high][low]"
    )
    command = [resolve_ffmpeg(), "-nostdin", "-v", "error", "-y", "-i", str(clip), "-filter_complex", graph]
    for name in FORMATS:
        command += ["-map", f"[{name[:-1]}]"]
    command += ["-map", "[high]", "-map", "[low]", "-c:v", "libx264", "-preset", "fast", "-profile:v", "high"]
    gop = str(_FPS * _GOP_SEC)
    command += ["-g", gop, "-keyint_min", gop, "-sc_threshold", "0"]
    for index, name in enumerate(FORMATS):
        rate = _RATES[name][0]
        command += [f"-b:v:{index}", f"{rate}k", f"-maxrate:v:{index}", f"{rate * 5 // 4}k"]
        command += [f"-bufsize:v:{index}", f"{rate * 3 // 2}k", f"-level:v:{index}", _level(name)]
    command += ["-c:a", "aac", "-ac", "2", "-ar", "48000", "-b:a:0", "128k", "-b:a:1", "96k", "-f", "tee"]
    slaves = [
        f"[f=hls:hls_time={_GOP_SEC}:hls_playlist_type=event:hls_segment_filename={name}/segment_%03d.ts"
        f":select='v\\:{index},a\\:{1 if name == '360p' else 0}']{name}/playlist.m3u8"
        for index, name in enumerate(FORMATS)
    ]
    return [*command, "|".join(slaves)]


def _level(name: str) -> str:
    return {"720p": "3.1", "480p": "3.1", "360p": "3.0"}[name]


def _by_hand(clip: Path, folder: Path) -> Cost:
    shutil.rmtree(folder, ignore_errors=True)
    playlists = [folder / name / "playlist.m3u8" for name in FORMATS]
    for playlist in playlists:
        playlist.parent.mkdir(parents=True)
    began = time.perf_counter()
    process = subprocess.Popen(["nice", "-n", str(_NICE), *command_by_hand(clip)], cwd=folder)
    playable = None
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if playable is None and all(playlist.exists() for playlist in playlists):
            playable = time.perf_counter() - began
        if pid:
            break
        time.sleep(_POLL_SEC if playable is None else 0.05)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or playable is None:
        raise RuntimeError(f"the command by hand ended with {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, playable)


def _convert(server: Server, url: str) -> Cost:
    cpu, began = server.cpu_sec(), time.time()
    wanted = {"inputUrl": url, "outputFormats": list(FORMATS), "ffmpegPreset": "fast"}
    job = server.call("POST", "/video/convert", wanted)
    while job["status"] in {"PENDING", "PROCESSING"}:
        if time.time() - began > _TIMEOUT_SEC:
            raise RuntimeError(f"job {job['id']} takes too long")
        time.sleep(0.25)
        job = server.call("GET", f"/video/jobs/{job['id']}")
    spent = server.cpu_sec() - cpu
    if job["status"] != "COMPLETED":
        raise RuntimeError(f"job {job['id']}: {job['errorCode']} {job['errorMessage']}")
    return Cost(_moment(job["completedAt"]) - began, spent, _moment(job["playableAt"]) - began)


def _moment(text: Any) -> float:
    return datetime.fromisoformat(text).timestamp()


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """The files of the folder over HTTP."""
    handler = functools.partial(_Files, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
