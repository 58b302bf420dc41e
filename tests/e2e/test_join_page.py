"""The join page in a real browser: pictures of others arrive through LiveKit, and leaving is seen by the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Eventually
from tests.e2e.browser import Page, opened_page
from tests.servers.bax import ROOT, BaxServer, bax_server
from tests.servers.livekit import livekit_binary
from tools.demo_people import Person, present
from tools.demo_rooms import join_link

pytestmark = [
    pytest.mark.xdist_group("e2e"),
    pytest.mark.skipif(
        not (ROOT / "web/vendor/livekit-client.umd.js").exists(),
        reason="livekit-client is not bundled: make setup",
    ),
]

_STATE = """(() => ({
  state: document.getElementById("state").textContent,
  error: document.getElementById("error").textContent,
  title: document.getElementById("title").textContent,
  tiles: [...document.querySelectorAll("#tiles .tile")].map((tile) => ({
    name: tile.querySelector(".name").textContent,
    videos: [...tile.querySelectorAll("video")].map((video) => ({
      width: video.videoWidth, height: video.videoHeight, time: video.currentTime,
      label: video.getAttribute("aria-label"),
    })),
    sounds: [...tile.querySelectorAll("audio")].map((audio) => ({paused: audio.paused, time: audio.currentTime})),
  })),
  pressed: [...document.querySelectorAll("button[aria-pressed=true]")].map((button) => button.id),
  disabled: [...document.querySelectorAll("button:disabled")].map((button) => button.id),
  hosts: [...new Set(performance.getEntriesByType("resource").map((one) => new URL(one.name).host))],
}))()"""
_BUTTONS = ["sound", "camera", "microphone", "leave"]


@pytest.fixture(scope="module")
def room_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaxServer]:
    """A server with a LiveKit of its own."""
    binary = livekit_binary()
    folder = tmp_path_factory.mktemp("rooms") / "bax"
    with bax_server(folder, livekit_embedded="1", livekit_server=str(binary)) as running:
        yield running


def _token(server: BaxServer, room: str, name: str, **more: Any) -> dict[str, Any]:
    body = {"roomName": room, "participantIdentity": name.lower(), "participantName": name, **more}
    answer = server.call("POST", "/v1/tokens", body)
    assert answer.status == 200, answer.body
    token: dict[str, Any] = answer.json
    return token


def _somebody(server: BaxServer, room: str) -> AbstractAsyncContextManager[None]:
    token = _token(server, room, "Ada")
    return present(token["url"], Person("Ada", 10, token["token"]))


def _identities(server: BaxServer, room: str) -> list[str]:
    items = server.call("GET", f"/v1/rooms/{room}/participants").json["items"]
    return sorted(one["identity"] for one in items)


def _state_of(page: Page) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def state() -> dict[str, Any]:
        found: dict[str, Any] = await page.value(_STATE)
        return found

    return state


def _tile(seen: dict[str, Any], name: str) -> dict[str, Any]:
    return _only([tile for tile in seen["tiles"] if tile["name"] == name])


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(items) == 1, items
    return items[0]


def _complaints(page: Page) -> list[str]:
    """Without Chromium's remark that sound waits for a click, which is as it should be."""
    return [text for text in page.messages if "AudioContext was not allowed to start" not in text]


async def test_a_guest_sees_who_is_there_and_leaves(
    room_server: BaxServer, eventually: Eventually, tmp_path: Path
) -> None:
    """Issue 4, section 5: remote video of non-zero size that goes on; sound only after a click; gone after leaving."""
    link = join_link(room_server.url, _token(room_server, "page", "Guest"))
    async with _somebody(room_server, "page"), opened_page(link) as page:
        state = _state_of(page)

        async def sees() -> dict[str, Any] | None:
            seen = await state()
            assert (seen["error"], seen["disabled"]) == ("", []), seen
            video = _only(_tile(seen, "Ada")["videos"])
            return seen if video["width"] > 0 and video["time"] > 0 else None

        first = await eventually(sees, within=40)
        began = _tile(first, "Ada")["videos"][0]["time"]

        async def goes_on() -> bool:
            video = _only(_tile(await state(), "Ada")["videos"])
            return bool(video["time"] > began + 0.5)

        await eventually(goes_on, within=20)
        assert _identities(room_server, "page") == ["ada", "guest"]
        await page.click("sound")

        async def sounds() -> dict[str, Any] | None:
            seen = await state()
            assert seen["pressed"] == ["sound"], seen
            sound = _only(_tile(seen, "Ada")["sounds"])
            return seen if not sound["paused"] and sound["time"] > 0 else None

        await eventually(sounds, within=20)
        await page.screenshot(tmp_path / "join.png")
        await page.click("leave")

        async def has_left() -> dict[str, Any] | None:
            seen = await state()
            return seen if seen["state"] == "You left the room." else None

        left = await eventually(has_left, within=20)
        await eventually(lambda: _identities(room_server, "page") == ["ada"], within=20)

    video = _tile(first, "Ada")["videos"][0]
    assert (video["width"], video["height"]) == (320, 180)
    assert video["label"] == "Picture of Ada"
    assert _tile(first, "Ada")["sounds"] == [], "a page may start sound only after a click"
    assert (first["title"], first["state"], first["pressed"]) == ("page", "Connected, 2 people", [])
    assert (left["tiles"], left["disabled"]) == ([], _BUTTONS)
    assert first["hosts"] == [room_server.url.removeprefix("http://")]
    assert _complaints(page) == []


async def test_a_guest_publishes(room_server: BaxServer, eventually: Eventually) -> None:
    """Camera and microphone (Chromium's own test pattern and beep) reach the room, and stop on a second click."""
    link = join_link(room_server.url, _token(room_server, "stage", "Guest"))

    def sources() -> set[str]:
        items = room_server.call("GET", "/v1/rooms/stage/participants").json["items"]
        return {track["source"] for one in items for track in one["tracks"] if not track["muted"]}

    async with opened_page(link, fake_devices=True) as page:
        state = _state_of(page)

        async def is_inside() -> bool:
            return not (await state())["disabled"]

        async def sees_itself() -> bool:
            video = _only(_tile(await state(), "Guest (you)")["videos"])
            return bool(video["width"] > 0)

        async def shows_both() -> dict[str, Any] | None:
            seen = await state()
            return seen if seen["pressed"] == ["camera", "microphone"] else None

        await eventually(is_inside, within=40)
        await page.click("camera")
        await eventually(sees_itself, within=20)
        await page.click("microphone")
        await eventually(lambda: sources() == {"CAMERA", "MICROPHONE"}, within=20)
        seen = await eventually(shows_both, within=20)
        await page.click("camera")
        await eventually(lambda: sources() == {"MICROPHONE"}, within=20)

    assert (seen["disabled"], seen["error"]) == ([], "")
    assert _complaints(page) == []


async def test_a_guest_who_is_not_let_in_is_told(room_server: BaxServer, eventually: Eventually) -> None:
    token = _token(room_server, "closed", "Guest")
    forged = {**token, "token": token["token"][:-6] + "AAAAAA"}
    async with opened_page(join_link(room_server.url, forged)) as page:
        state = _state_of(page)

        async def refused() -> dict[str, Any] | None:
            seen = await state()
            return seen if seen["error"].startswith("Cannot join: ") else None

        seen = await eventually(refused, within=40)

    assert (seen["state"], seen["disabled"]) == ("Not connected.", _BUTTONS)


async def test_a_link_without_a_token_is_told(room_server: BaxServer, eventually: Eventually) -> None:
    async with opened_page(f"{room_server.url}/join/") as page:
        state = _state_of(page)

        async def told() -> bool:
            return bool((await state())["error"].startswith("This page needs a join link"))

        await eventually(told, within=20)


async def test_a_viewer_gets_no_camera_button(room_server: BaxServer, eventually: Eventually) -> None:
    """TK-13: whoever may not publish is not offered to."""
    token = _token(room_server, "watched", "Guest", grants={"canPublish": False})
    async with opened_page(join_link(room_server.url, token)) as page:
        state = _state_of(page)

        async def inside() -> dict[str, Any] | None:
            seen = await state()
            return seen if "leave" not in seen["disabled"] else None

        seen = await eventually(inside, within=40)

    assert seen["disabled"] == ["camera", "microphone"]


def test_the_page_talks_to_nobody_but_us_and_our_livekit(room_server: BaxServer) -> None:
    """A link that names another LiveKit leads nowhere: the policy names ours, and no other address."""
    answer = room_server.call("GET", "/join/", headers={})
    livekit = _token(room_server, "policy", "Guest")["url"].removeprefix("ws://").rstrip("/")
    rules = dict(
        rule.strip().partition(" ")[::2] for rule in answer.headers["content-security-policy"].split(";")
    )

    assert answer.status == 200
    assert rules["connect-src"] == f"'self' ws://{livekit} http://{livekit}"
    assert (rules["default-src"], rules["script-src"]) == ("'none'", "'self'")
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert room_server.call("GET", "/join", headers={}).status == 307
