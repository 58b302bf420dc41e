"""The part of the tour in a room: people join, REST and webhooks tell of them, and a link lets a browser in."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from adapters.livekit.binary import find_binary
from server.webhooks.verification import verify_body
from tools.demo_people import READY

ROOT = Path(__file__).resolve().parent.parent
ROOM = "demo"
ROOM_EVENTS = ("room.*", "participant.*", "track.*")
# Names and the hues of their pictures.
PEOPLE = {"Ada": 10, "Ben": 130, "Cleo": 250}
READY_TIMEOUT_SEC = 40
LEAVE_TIMEOUT_SEC = 10
LISTED_TIMEOUT_SEC = 10
# Webhooks: the room's start, the joins, and a picture and a tone of each.
EXPECTED = Counter({"room.started": 1, "participant.joined": len(PEOPLE), "track.published": 2 * len(PEOPLE)})

Call = Callable[..., Awaitable[dict[str, Any]]]


Delivery = tuple[Mapping[str, str], bytes]
"""Headers and raw body of a webhook."""


class RoomFailed(Exception):
    """The synthetic participants did not come into the room, or what is told of them is wrong."""


class People:
    """The process that the synthetic participants live in."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    async def join(self, url: str, people: Sequence[Mapping[str, Any]]) -> None:
        """Returns when all of them publish; raise RoomFailed if they do not."""
        self._process = self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        # Tokens go through the pipe: arguments are for everybody to see.
        self._process.stdin.write(json.dumps({"url": url, "people": people}) + "\n")
        self._process.stdin.flush()
        try:
            async with asyncio.timeout(READY_TIMEOUT_SEC):
                line = await asyncio.to_thread(self._process.stdout.readline)
        except TimeoutError:
            # Ends the thread's reading too, which the event loop would wait for.
            self._process.kill()
            raise RoomFailed(f"nobody was in the room within {READY_TIMEOUT_SEC} s") from None
        if line.strip() != READY:
            raise RoomFailed(f"nobody came into the room; see {self._log}")

    def _start(self) -> subprocess.Popen[str]:
        with self._log.open("w") as log:
            # A group of its own: Ctrl-C reaches the demo, which then lets them leave.
            return subprocess.Popen(
                [sys.executable, "-m", "tools.demo_people"],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if not name.startswith("BAX_")},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def leave(self) -> None:
        """Without effect if they are not there."""
        if self._process is None:
            return
        try:
            self._process.communicate(timeout=LEAVE_TIMEOUT_SEC)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.communicate()


@contextmanager
def people_in_rooms(log: Path) -> Iterator[People]:
    """Whoever joins within the block has left when it ends."""
    people = People(log)
    try:
        yield people
    finally:
        people.leave()


def has_livekit() -> bool:
    """Whether `bax serve` can start a LiveKit of its own here."""
    named = os.environ.get("BAX_LIVEKIT_SERVER")
    try:
        find_binary(Path(named) if named else None)
    except FileNotFoundError:
        return False
    return True


def is_about(envelope: Mapping[str, Any], room_sid: str) -> bool:
    """Whether an event is about that session of the room, or about somebody or something in it."""
    data = envelope["data"]
    return room_sid in (data.get("roomSid"), data.get("sid"))


def all_came(deliveries: Sequence[Delivery]) -> bool:
    return _counted(deliveries) >= EXPECTED


def shown_events(deliveries: Sequence[Delivery], secret: str) -> Iterator[str]:
    """A line for each; raise RoomFailed if there are more than expected or one is not signed with the secret."""
    if (counted := _counted(deliveries)) != EXPECTED:
        raise RoomFailed(f"the webhooks tell of more than happened: {dict(counted)}")
    for headers, body in deliveries:
        if not verify_body(body, headers["X-BaxCloud-Signature"], [secret]):
            raise RoomFailed("the signature of a room's webhook does not fit")
        event = json.loads(body)
        data = event["data"]
        what = data.get("identity", data["roomName"])
        yield f"webhook {event['event']:18} {what:5} {data.get('source', '').lower()}".rstrip()


def _counted(deliveries: Sequence[Delivery]) -> Counter[str]:
    return Counter(json.loads(body)["event"] for _, body in deliveries)


async def meet(call: Call, people: People) -> dict[str, Any]:
    """A room with all of PEOPLE in it; the room as the API created it."""
    room = await call("POST", "/v1/rooms", {"name": ROOM, "metadata": '{"topic": "demo"}'})
    tokens = {name: await mint(call, name) for name in PEOPLE}
    url = next(iter(tokens.values()))["url"]
    await people.join(
        url, [{"name": name, "hue": PEOPLE[name], "token": token["token"]} for name, token in tokens.items()]
    )
    return room


async def present_people(call: Call) -> Sequence[Mapping[str, Any]]:
    """The participants as REST lists them, once it shows all with picture and sound; raise RoomFailed if it does not."""
    deadline = time.monotonic() + LISTED_TIMEOUT_SEC
    while True:
        items: Sequence[Mapping[str, Any]] = (await call("GET", f"/v1/rooms/{ROOM}/participants"))["items"]
        # LiveKit's list may lag behind its events for a moment.
        if len([one for one in items if one["state"] == "ACTIVE" and len(one["tracks"]) == 2]) == len(PEOPLE):
            return items
        if time.monotonic() > deadline:
            raise RoomFailed(f"the list does not show who is in the room: {items}")
        await asyncio.sleep(0.1)


async def mint(call: Call, name: str) -> dict[str, Any]:
    """A token with which somebody of that name joins the demo's room."""
    body = {"roomName": ROOM, "participantIdentity": name.lower(), "participantName": name}
    return await call("POST", "/v1/tokens", body)


def join_link(server: str, token: Mapping[str, Any]) -> str:
    """In the fragment, which no server sees and no log keeps."""
    return f"{server}/join/#{urlencode({'url': token['url'], 'token': token['token']})}"
