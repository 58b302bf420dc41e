"""Joins the LiveKit behind as a participant would: whether media gets through, and which version answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from adapters.livekit.tokens import TokenSigner
from adapters.livekit.twirp import TwirpClient
from server.clock import SystemClock
from server.domain.room_names import MARK
from server.errors import ServiceError
from server.ports.livekit import LiveKitAddress

_ROOT = Path(__file__).resolve().parents[2]
# A name that no project can have: what LiveKit tells of it concerns nobody.
_ROOM_PREFIX = f"{MARK}probe:"
_PROTOCOL = 16


@dataclass(frozen=True, slots=True)
class MediaProbe:
    """`route` is the way that media takes, like `udp 127.0.0.1:7882`; None: it does not, and `problem` says why."""

    version: str | None
    route: str | None
    problem: str | None


async def probe_media(address: LiveKitAddress, *, timeout_sec: float = 10.0) -> MediaProbe:
    """Opens a room of its own, sends one packet through it and deletes it. Never raises for what LiveKit does."""
    room = _ROOM_PREFIX + secrets.token_hex(4)
    grants = {"roomJoin": True, "room": room, "hidden": True, "canPublish": False, "canPublishData": True}
    token = TokenSigner(SystemClock()).token(address, grants, identity="probe")
    version = await _version(address, token, timeout_sec)
    try:
        answer = await _join(address.public_url, token, timeout_sec)
    except TimeoutError:
        answer = {"problem": f"media did not get through within {timeout_sec:g} s"}
    finally:
        await _delete(address, room)
    return MediaProbe(version, answer.get("route"), answer.get("problem"))


async def _version(address: LiveKitAddress, token: str, timeout_sec: float) -> str | None:
    """From the greeting of the signal connection: no call tells."""
    from livekit.protocol.rtc import SignalResponse

    query = {"access_token": token, "protocol": str(_PROTOCOL), "auto_subscribe": "0"}
    with contextlib.suppress(aiohttp.ClientError, OSError, ValueError, TimeoutError):
        async with (
            asyncio.timeout(timeout_sec),
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{address.url}/rtc", params=query) as socket,
        ):
            greeting = SignalResponse.FromString(await socket.receive_bytes())
            return str(greeting.join.server_info.version) or None
    return None


async def _join(url: str, token: str, timeout_sec: float) -> dict[str, Any]:
    # In a process of its own: the native library may abort the one that it was loaded into when that ends.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(timeout_sec):
            output, _ = await process.communicate(json.dumps({"url": url, "token": token}).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        return {"problem": "the test participant ended without an answer"}
    return answer


async def _delete(address: LiveKitAddress, room: str) -> None:
    client = TwirpClient()
    # DeleteRoomRequest{room}
    request = b"\n" + bytes([len(room)]) + room.encode()
    with contextlib.suppress(ServiceError):
        await client.call(address, "livekit.RoomService/DeleteRoom", request, grants={"roomCreate": True})
    await client.close()


async def _participate(url: str, token: str) -> dict[str, str]:
    from livekit import rtc

    room = rtc.Room()
    try:
        await room.connect(url, token, rtc.RoomOptions(auto_subscribe=False))
        await room.local_participant.publish_data(b"probe")
        stats = await room.get_rtc_stats()
    except (rtc.ConnectError, rtc.participant.PublishDataError) as error:
        return {"problem": f"cannot join: {str(error).replace(token, '***')}"}
    every = [*stats.publisher_stats, *stats.subscriber_stats]
    pairs = [each.candidate_pair for each in every if each.WhichOneof("stats") == "candidate_pair"]
    used = {pair.candidate_pair.remote_candidate_id for pair in pairs if pair.candidate_pair.nominated}
    for each in every:
        if each.WhichOneof("stats") == "remote_candidate" and each.remote_candidate.rtc.id in used:
            found = each.remote_candidate.candidate
            return {"route": f"{found.protocol} {found.address}:{found.port}"}
    return {"route": "unknown"}


def _main() -> None:
    order = json.load(sys.stdin)
    answer = asyncio.run(_participate(order["url"], order["token"]))
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
