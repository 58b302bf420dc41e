"""A loudspeaker that nobody hears: PulseAudio with one null sink, and what is played on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from adapters.web.programs import Programs, end, environment, start

SAMPLE_RATE = 48_000
_START_SEC = 10.0
_POLL_SEC = 0.02
_LATENCY_MS = 20
_SINK = "egress"


@asynccontextmanager
async def opened_sound(programs: Programs, folder: Path) -> AsyncIterator[dict[str, str]]:
    """The environment that leads to it, `PULSE_SERVER`. Raise TimeoutError when it does not start."""
    socket = folder / "pulse.socket"
    process = await start(
        [
            programs.sound_server, "-n", "--daemonize=no", "--exit-idle-time=-1", "--disallow-exit",
            "--use-pid-file=no", "--high-priority=no", "--realtime=no",
            "-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1",
            "-L", f"module-null-sink sink_name={_SINK} rate={SAMPLE_RATE} channels=2",
        ],
        environment(folder, {}),
    )  # fmt: skip
    try:
        async with asyncio.timeout(_START_SEC):
            while not socket.exists():
                if process.returncode is not None:
                    raise OSError("the sound server did not start")
                await asyncio.sleep(_POLL_SEC)
        # The folder is ours alone, and so is the socket in it.
        yield {"PULSE_SERVER": f"unix:{socket}"}
    finally:
        await end(process)


@asynccontextmanager
async def recorded_sound(
    programs: Programs, folder: Path, server: dict[str, str]
) -> AsyncIterator[asyncio.StreamReader]:
    """What is played, as signed 16 bit stereo at SAMPLE_RATE, from now on."""
    process = await start(
        [
            programs.sound_recorder, "--raw", f"--device={_SINK}.monitor", "--format=s16le",
            f"--rate={SAMPLE_RATE}", "--channels=2", f"--latency-msec={_LATENCY_MS}",
        ],
        environment(folder, server),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        await end(process)
