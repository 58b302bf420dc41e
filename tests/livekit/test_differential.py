"""Every method of `livekit.RoomService` asked of LiveKit and of us in the same run: answers are equal (issue section 3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import jwt
import pytest

from tests.conftest import Eventually
from tests.livekit.sides import JSON, METHODS, PROTOBUF, Case, Side, outcomes, sides
from tests.livekit.stage import LiveKitStage, Pair

ADMIN = {"roomAdmin": True, "room": "{room}"}
MOVE = {**ADMIN, "destinationRoom": "{room}-there"}
CREATE = {"roomCreate": True}
ALICE = {"room": "{room}", "identity": "alice"}
NOBODY = {"room": "{room}", "identity": "nobody"}

# What is asked of each method with the grant it needs: a note and a body.
GOOD: Mapping[str, tuple[Mapping[str, Any], tuple[tuple[str, Mapping[str, Any]], ...]]] = {
    "CreateRoom": (
        CREATE,
        (
            ("plain", {"name": "{room}-new", "emptyTimeout": 33, "maxParticipants": 5, "metadata": "m"}),
            ("again", {"name": "{room}", "emptyTimeout": 99}),
            ("snake", {"name": "{room}-snake", "empty_timeout": 44, "departure_timeout": 7}),
            ("long name", {"name": "n" * 257}),
            ("big metadata", {"name": "{room}-big", "metadata": "m" * (512 * 1024 + 1)}),
            ("unknown preset", {"name": "{room}-preset", "roomPreset": "nope"}),
            ("empty egress", {"name": "{room}-egress", "egress": {}}),
        ),
    ),
    "ListRooms": (
        {"roomList": True},
        (("named", {"names": ["{room}"]}), ("missing", {"names": ["{room}-missing"]})),
    ),
    "DeleteRoom": (CREATE, (("missing", {"room": "{room}-missing"}), ("empty", {}))),
    "ListParticipants": (ADMIN, (("people", {"room": "{room}"}),)),
    "GetParticipant": (ADMIN, (("alice", ALICE), ("nobody", NOBODY), ("no identity", {"room": "{room}"}))),
    "RemoveParticipant": (ADMIN, (("nobody", NOBODY),)),
    "MutePublishedTrack": (
        ADMIN,
        (
            ("unknown track", {**ALICE, "trackSid": "TR_nope", "muted": True}),
            ("nobody", {**NOBODY, "trackSid": "TR_nope", "muted": True}),
        ),
    ),
    "UpdateParticipant": (
        ADMIN,
        (
            ("metadata", {**ALICE, "metadata": "hello"}),
            ("name", {**ALICE, "name": "Alice"}),
            ("attributes", {**ALICE, "attributes": {"b": "2", "a": "1"}}),
            ("permission", {**ALICE, "permission": {"canPublish": True, "canSubscribe": True}}),
            ("nobody", {**NOBODY, "metadata": "hello"}),
            ("long name", {**ALICE, "name": "n" * 257}),
            ("big metadata", {**ALICE, "metadata": "m" * (512 * 1024 + 1)}),
            ("big attributes", {**ALICE, "attributes": {"a": "m" * (64 * 1024)}}),
            ("null character", {**ALICE, "metadata": "a\0b"}),
        ),
    ),
    "UpdateSubscriptions": (
        ADMIN,
        (
            ("unknown track", {**ALICE, "trackSids": ["TR_nope"], "subscribe": True}),
            ("nobody", {**NOBODY, "trackSids": ["TR_nope"], "subscribe": True}),
        ),
    ),
    "SendData": (
        ADMIN,
        (
            ("to all", {"room": "{room}", "data": "aGk=", "kind": "RELIABLE"}),
            ("kind as number", {"room": "{room}", "data": "aGk=", "kind": 1, "topic": "t"}),
            ("short nonce", {"room": "{room}", "data": "aGk=", "nonce": "aGk="}),
            ("to nobody", {"room": "{room}", "data": "aGk=", "destinationIdentities": ["nobody"]}),
        ),
    ),
    "UpdateRoomMetadata": (
        ADMIN,
        (
            ("set", {"room": "{room}", "metadata": "new"}),
            ("clear", {"room": "{room}", "metadata": ""}),
            ("big", {"room": "{room}", "metadata": "m" * (512 * 1024 + 1)}),
        ),
    ),
    "ForwardParticipant": (
        MOVE,
        (("alice", {**ALICE, "destinationRoom": "{room}-there"}), ("nobody", {**NOBODY, "destinationRoom": "{room}-there"})),
    ),
    "MoveParticipant": (
        MOVE,
        (("alice", {**ALICE, "destinationRoom": "{room}-there"}), ("nobody", {**NOBODY, "destinationRoom": "{room}-there"})),
    ),
    "PerformRpc": (
        ADMIN,
        (
            ("unsupported", {"room": "{room}", "destinationIdentity": "alice", "method": "nope", "responseTimeoutMs": 2000}),
            ("nobody", {"room": "{room}", "destinationIdentity": "nobody", "method": "nope"}),
            ("no identity", {"room": "{room}", "method": "nope"}),
            ("big payload", {"room": "{room}", "destinationIdentity": "alice", "method": "m", "payload": "p" * 15361}),
        ),
    ),
}  # fmt: skip

# Bodies that are wrong for every method; the grant is there.
BAD_BODIES = (
    ("empty", b"", JSON),
    ("not json", b"{", JSON),
    ("null", b"null", JSON),
    ("list", b"[]", JSON),
    ("text", b'"x"', JSON),
    ("not text", b"\xff\xfe{}", JSON),
    ("wrong type", b'{"room": 1, "name": 1, "names": 1}', JSON),
    ("not protobuf", b"\xff\xff\xff", PROTOBUF),
    ("empty protobuf", b"", PROTOBUF),
    ("unknown field", b'{"nope": {"a": [1]}}', JSON),
)


@asynccontextmanager
async def with_alice(
    stage: LiveKitStage, asked: tuple[Side, ...], eventually: Eventually
) -> AsyncIterator[None]:
    """Every side's room exists and has a participant who publishes data; the first two reach LiveKit directly."""
    from livekit import rtc

    itself = Pair(stage.livekit.api_key, stage.livekit.api_secret)
    visits = []
    for side in asked:
        answer = await stage.ask(
            "RoomService/CreateRoom", {"name": side.room}, side.pair.token(CREATE), base=side.base
        )
        assert answer.status == 200
        inside = f"bax:cl_other:{side.room}" if side.name == "other" else side.room
        visit = rtc.Room()
        await visit.connect(
            stage.livekit.public_url, itself.token({"roomJoin": True, "room": inside}, sub="alice")
        )
        visits.append(visit)

        async def is_active(side: Side = side) -> bool:
            token = side.pair.token({"roomAdmin": True, "room": side.room})
            listed = await stage.ask(
                "RoomService/ListParticipants", {"room": side.room}, token, base=side.base
            )
            return [one["state"] for one in listed.json.get("participants", ())] == ["ACTIVE"]

        # LiveKit may hear of it after her.
        await eventually(is_active)
    try:
        yield
    finally:
        for visit in visits:
            await visit.disconnect()


async def differences(stage: LiveKitStage, cases: list[Case], asked: tuple[Side, ...]) -> list[str]:
    """Cases whose answers are not all LiveKit's, with both answers."""
    one_by_one = asyncio.Semaphore(1 if cases[0].method.startswith("Update") else len(cases))

    async def outcome(case: Case) -> list[Any]:
        # What changes a participant is asked in turn; where nobody answers LiveKit waits 3 s, so the rest goes together.
        async with one_by_one:
            return await outcomes(stage, case, asked)

    found = await asyncio.gather(*map(outcome, cases))
    return [
        f"{case.name} as {side.name}: {str(ours)[:600]}\n  LiveKit: {str(theirs)[:600]}"
        for case, (theirs, *mine) in zip(cases, found, strict=True)
        for side, ours in zip(asked[1:], mine, strict=True)
        if ours != theirs
    ]


def test_all_methods_are_compared() -> None:
    assert set(GOOD) == set(METHODS)


@pytest.mark.parametrize("method", list(GOOD))
async def test_good_and_missing_things(stage: LiveKitStage, method: str, eventually: Eventually) -> None:
    """LK-06, B-80: both encodings of every request, on rooms and participants that are there and that are not."""
    video, bodies = GOOD[method]
    for kind in (JSON, PROTOBUF):
        asked = sides(stage, f"{method}-{kind[-4:]}")
        async with with_alice(stage, asked, eventually):
            cases = [Case(method, body, video, kind=kind, note=note) for note, body in bodies]
            assert await differences(stage, cases, asked) == []


@pytest.mark.parametrize("method", list(GOOD))
async def test_bodies_and_grants(stage: LiveKitStage, method: str) -> None:
    """LK-01, B-82: decoding comes before the grant, and a missing or a foreign grant is one and the same 401."""
    video, bodies = GOOD[method]
    good = bodies[0][1]
    asked = sides(stage, f"{method}-grants")
    lacking: list[tuple[str, Mapping[str, Any] | None]] = [
        ("no token", None),
        ("no grant", {}),
        ("false", dict.fromkeys(("roomCreate", "roomList", "roomAdmin"), False)),
        ("joins", {"roomJoin": True, "room": "{room}"}),
        ("another room", {"roomAdmin": True, "room": "elsewhere", "destinationRoom": "{room}-there"}),
        ("no room", {"roomAdmin": True}),
        ("wildcard", {"roomAdmin": True, "room": "*"}),
    ]
    cases = [Case(method, good, grants, note=note) for note, grants in lacking]
    cases += [Case(method, good, grants, kind=PROTOBUF, note=note) for note, grants in lacking]
    cases += [Case(method, raw=b"{", note=f"bad json, {note}", video=grants) for note, grants in lacking]
    bad = [
        Case(method, raw=raw, kind=kind, note=note, video={**video, "room": ""})
        for note, raw, kind in BAD_BODIES
        # They make the room or delete it, and nothing else is different about them.
        if not (
            method in ("CreateRoom", "DeleteRoom", "ListRooms")
            and note in ("empty protobuf", "unknown field")
        )
    ]
    assert await differences(stage, cases + bad, asked) == []


def tokens(pair: Pair, video: Mapping[str, Any]) -> dict[str, str]:
    """Every kind of token by what is wrong with it."""
    now = int(time.time())
    good = pair.token(video)
    head, body, signature = good.split(".")
    stranger = Pair("APIstranger", pair.api_secret)
    plain = {"iss": pair.api_key, "exp": now + 60, "video": dict(video)}
    return {
        "good": good,
        "expired": pair.token(video, exp=now - 120),
        "expired within the leeway": pair.token(video, exp=now - 20),
        "without exp": jwt.encode({"iss": pair.api_key, "video": dict(video)}, pair.api_secret),
        "not yet valid": pair.token(video, nbf=now + 120),
        "valid within the leeway": pair.token(video, nbf=now + 20),
        "wrong secret": Pair(pair.api_key, "x" * 40).token(video),
        "unknown key": stranger.token(video),
        "no issuer": jwt.encode({"exp": now + 60, "video": dict(video)}, pair.api_secret),
        "alg none": jwt.encode(plain, "", algorithm="none"),
        "alg HS384": jwt.encode(plain, pair.api_secret + "y" * 20, algorithm="HS384"),
        "cut": good[:-4],
        "two parts": f"{head}.{body}",
        "unsigned": f"{head}.{body}.",
        "swapped body": f"{head}.{body[:-2]}.{signature}",
        "not a token": "abc",
        "oversized": good + "x" * 40_000,
        "video is text": pair.token("admin"),  # type: ignore[arg-type]
        "flag is text": pair.token({**video, "roomList": "yes"}),
        "exp is text": pair.token(video, exp="soon"),
    }


async def test_tokens(stage: LiveKitStage) -> None:
    """Every bad token is refused as LiveKit does, before anything else is looked at, and never repeated."""
    direct, *mine = sides(stage, "tokens")
    video = {"roomList": True}
    found = []
    for name, token in tokens(direct.pair, video).items():
        for path, verb in (
            ("RoomService/ListRooms", "POST"),
            ("RoomService/ListRooms", "GET"),
            ("Nope/Nope", "POST"),
        ):
            theirs = await stage.ask(path, {"names": ["-"]}, token, base=direct.base, verb=verb)
            for side in mine:
                own = tokens(side.pair, video)[name]
                ours = await stage.ask(path, {"names": ["-"]}, own, base=side.base, verb=verb)
                if (ours.status, ours.content_type) != (theirs.status, theirs.content_type):
                    found.append((name, path, verb, side.name, ours, theirs))
                assert own.encode() not in ours.body
    assert found == []


HEADERS: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "lower-case bearer": ("POST", "", {"authorization": "bearer {token}"}),
    "no scheme": ("POST", "", {"authorization": "{token}"}),
    "empty bearer": ("POST", "", {"authorization": "Bearer "}),
    "empty header": ("POST", "?access_token={token}", {"authorization": ""}),
    "query": ("POST", "?access_token={token}", {}),
    "bad query": ("POST", "?access_token=abc", {}),
    "header before query": ("POST", "?access_token=abc", {"authorization": "Bearer {token}"}),
    "origin": ("POST", "", {"authorization": "Bearer {token}", "origin": "https://web.example"}),
    "origin, refused": ("POST", "", {"authorization": "Bearer x", "origin": "https://web.example"}),
    "charset": ("POST", "", {"authorization": "Bearer {token}", "content-type": "application/json;charset=UTF-8"}),
    "capitals": ("POST", "", {"authorization": "Bearer {token}", "content-type": "Application/JSON"}),
    "text": ("POST", "", {"authorization": "Bearer {token}", "content-type": "text/plain"}),
    "no type": ("POST", "", {"authorization": "Bearer {token}", "content-type": ""}),
    "preflight": (
        "OPTIONS",
        "",
        {"origin": "https://web.example", "access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"},
    ),
    "preflight, odd verb": ("OPTIONS", "", {"origin": "https://web.example", "access-control-request-method": "PUT"}),
    "preflight without origin": ("OPTIONS", "", {"access-control-request-method": "POST"}),
    "options": ("OPTIONS", "", {"authorization": "Bearer {token}"}),
    "put": ("PUT", "", {"authorization": "Bearer {token}"}),
    "get": ("GET", "", {}),
}  # fmt: skip
# The call, LiveKit's status and code (None: not asked), ours, and why.
Difference = tuple[Case, tuple[int, str] | None, tuple[int, str], str]
# Where we differ from LiveKit on purpose: what is sent, what both answer, and why. Room and participant as above.
DELIBERATE: tuple[Difference, ...] = (
    (
        Case("SendData", {}, ADMIN, raw=b'{"room": "{room}", "data": "aGk=", "kind": "NOPE"}'),
        (200, ""),
        (400, "malformed"),
        "a misspelt enum is refused instead of being taken for the first value",
    ),
    (
        Case("ListRooms", {}, {"roomList": True}, raw=b'{"names": ["-"]} trailing'),
        (200, ""),
        (400, "malformed"),
        "trailing garbage is refused",
    ),
    (
        Case("UpdateParticipant", {**ALICE, "name": "n" * 257}, {}),
        (400, "invalid_argument"),
        (401, "unauthenticated"),
        "grants are checked before sizes: whoever may not call learns nothing more",
    ),
    (
        Case("CreateRoom", {"name": "{room}-auto", "egress": {"room": {"roomName": "x", "layout": "grid"}}}, CREATE),
        None,
        (400, "invalid_argument"),
        "what cannot be recorded opens no room; LiveKit without redis lets the call hang for 10 s",
    ),
    (
        Case("CreateRoom", {"name": "bax:cl_other:{room}"}, CREATE),
        (200, ""),
        (400, "invalid_argument"),
        "names that begin with the mark of other projects' rooms are nobody's to use",
    ),
    (
        Case("ListParticipants", {"room": "bax:cl_other:{room}"}, {"roomAdmin": True, "room": "bax:cl_other:{room}"}),
        (200, ""),
        (400, "invalid_argument"),
        "the same for looking into them",
    ),
)  # fmt: skip


@pytest.mark.parametrize("difference", DELIBERATE, ids=lambda one: one[3])
async def test_deliberate_differences(stage: LiveKitStage, difference: Difference) -> None:
    """livekit-surface.md 15, and what isolation asks for: each is still what we say it is, on both sides."""
    case, theirs, ours, _why = difference
    asked = sides(stage, "deliberate")
    for side, expected in zip(asked, (theirs, ours, ours), strict=True):
        if expected is None:
            continue
        created = await Case("CreateRoom", {"name": "{room}"}, CREATE).ask(stage, side)
        assert created.status == 200
        answer = await replace(case, raw=case.raw and case.raw.replace(b"{room}", side.room.encode())).ask(
            stage, side
        )
        said = answer.json.get("code", "") if answer.status != 200 else ""
        assert (answer.status, said) == expected, side.name


PATHS = (
    "/twirp/livekit.RoomService/ListRooms",
    "//twirp/livekit.RoomService/ListRooms",
    "/twirp/livekit.RoomService/Nope",
    "/twirp/livekit.RoomService/",
    "/twirp/livekit.RoomService/ListRooms/more",
    "/twirp/livekit.Nope/ListRooms",
    "/twirp/livekit.EgressService/ListEgress",
)


async def test_routes_and_headers(stage: LiveKitStage) -> None:
    """LK-02, LK-03: verbs, paths, content types, where the token stands, and CORS."""
    from tests.livekit.sides import comparable

    found = []
    for name, (verb, query, headers) in HEADERS.items():
        for path in PATHS:
            seen = []
            for side in sides(stage, "routes"):
                token = side.pair.token({"roomList": True})
                sent = {key: value.replace("{token}", token) for key, value in headers.items()}
                kind = sent.pop("content-type", JSON)
                answer = await stage.ask(
                    path + query.replace("{token}", token), {"names": ["-"]}, None,
                    base=side.base, verb=verb, kind=kind, headers=sent,
                )  # fmt: skip
                seen.append(comparable(Case("ListRooms"), answer, side))
            found += [(name, path, ours, seen[0]) for ours in seen[1:] if ours != seen[0]]
    assert found == []
