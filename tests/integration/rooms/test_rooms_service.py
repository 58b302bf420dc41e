"""RM, TK, PT: the samples of seed 001 and what they leave out, on a real livekit-server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from google.protobuf import json_format

from adapters.db.unit_of_work import SqlDatabase
from tests.conftest import Eventually
from tests.integration.rooms.stage import OTHERS, RoomStage, room_stage
from tests.servers.livekit import livekit_server
from tests.transport.surface import KEY, OTHER_PROJECT, headers_for


async def room(stage: RoomStage, name: str, headers: Any = None, **more: Any) -> Any:
    answer = await stage.rest("POST", "/v1/rooms", {"name": name, **more}, headers)
    assert answer.status == 201, answer
    return answer.reply


class TestRooms:
    async def test_samples(self, stage: RoomStage) -> None:
        """What was asked for is echoed, found again, listed, changed and gone.

        RM-01, RM-02, RM-06, RM-07, RM-08, RM-09, RM-10, RM-11.
        """
        made = await room(stage, "my-meeting", maxParticipants=50, enableRecording=True)
        assert (made["name"], made["maxParticipants"], made["enableRecording"]) == ("my-meeting", 50, True)
        standup: dict[str, Any] = {
            "name": "team-standup",
            "maxParticipants": 20,
            "emptyTimeout": 300,
            "metadata": '{"type": "standup"}',
            "enableRecording": True,
        }
        made = await room(stage, **standup)
        assert {key: made[key] for key in standup} == standup
        assert made["sid"].startswith("RM_")
        assert (made["numParticipants"], made["activeRecording"]) == (0, False)

        listed = await stage.rest("GET", "/v1/rooms")
        assert {one["name"] for one in listed.reply["items"]} >= {"my-meeting", "team-standup"}
        assert listed.reply["total"] == len(listed.reply["items"])
        found = await stage.rest("GET", "/v1/rooms/team-standup")
        assert found.reply == made
        changed = await stage.rest(
            "PATCH", "/v1/rooms/team-standup/metadata", {"metadata": '{"status": "active"}'}
        )
        assert (changed.status, changed.reply["metadata"]) == (200, '{"status": "active"}')
        assert (await stage.rest("GET", "/v1/rooms/team-standup")).reply == changed.reply
        assert (await stage.rest("DELETE", "/v1/rooms/team-standup")).status == 204
        assert (await stage.rest("GET", "/v1/rooms/team-standup")).status == 404

    async def test_creating_again_changes_nothing(self, stage: RoomStage) -> None:
        """B-46; livekit-surface 15: sid and first settings stay."""
        first = await room(stage, "again", maxParticipants=3, metadata="one", enableRecording=False)
        again = await room(stage, "again", maxParticipants=9, metadata="two", enableRecording=True)
        assert again == first
        assert first["enableRecording"] is False

    async def test_recording_is_allowed_unless_refused(self, stage: RoomStage) -> None:
        """B-46; a new session of a room starts afresh."""
        assert (await room(stage, "plain"))["enableRecording"] is True
        assert (await room(stage, "plain", enableRecording=False))["enableRecording"] is True
        await stage.rest("DELETE", "/v1/rooms/plain")
        assert (await room(stage, "plain", enableRecording=False))["enableRecording"] is False
        listed = await stage.rest("GET", "/v1/rooms")
        assert {one["name"]: one["enableRecording"] for one in listed.reply["items"]}["plain"] is False

    @pytest.mark.parametrize(
        ("body", "named"),
        [
            ({}, "name"),
            ({"name": ""}, "name"),
            ({"name": "x", "maxParticipants": -1}, "maxParticipants"),
            ({"name": "x", "emptyTimeout": -1}, "emptyTimeout"),
            ({"name": "x", "metadata": {"a": 1}}, "metadata"),
            ({"name": "bax:cl_other:x"}, "name"),
            ({"name": "ü" * 200}, "name"),
            ({"name": "a\0b"}, "name"),
        ],
    )
    async def test_bad_rooms(self, stage: RoomStage, body: Any, named: str) -> None:
        """RM-03, RM-04, RM-06"""
        answer = await stage.rest("POST", "/v1/rooms", body)
        assert (answer.status, named in answer.message) == (400, True), answer

    async def test_metadata_can_be_cleared(self, stage: RoomStage) -> None:
        """RM-10"""
        await room(stage, "clear", metadata="something")
        answer = await stage.rest("PUT", "/v1/rooms/clear/metadata", {"metadata": ""})
        assert answer.reply["metadata"] == ""

    @pytest.mark.parametrize("name", ["a b", "a/b", "ü-räum/ 日本", "100%", "a?b#c", "..", "%2F", "+"])
    async def test_any_name(self, stage: RoomStage, name: str) -> None:
        """RM-09"""
        from urllib.parse import quote

        made = await room(stage, name)
        path = f"/v1/rooms/{quote(name, safe='')}"
        assert made["name"] == name
        assert (await stage.rest("GET", path)).reply == made
        assert (await stage.rest("GET", f"{path}/participants")).reply == {"items": [], "total": 0}
        answer = await stage.rest("PATCH", f"{path}/metadata", {"metadata": "m"})
        assert answer.reply["metadata"] == "m"
        assert (await stage.rest("DELETE", path)).status == 204
        assert (await stage.rest("GET", path)).status == 404

    async def test_all_transports(self, stage: RoomStage) -> None:
        surface = stage.surface
        create, get = surface.method("CreateRoom"), surface.method("GetRoom")
        request = create.request_type(name="everywhere", max_participants=2)
        made = [
            await surface.grpc(create, request, headers_for()),
            await surface.twirp_json(create, request, headers_for()),
            await surface.twirp_protobuf(create, request, headers_for()),
        ]
        assert [one.reply for one in made] == [made[0].reply] * 3
        rest = await stage.rest("GET", "/v1/rooms/everywhere")
        assert json_format.MessageToDict(json_format.ParseDict(rest.reply, get.reply_type())) == made[0].reply
        missing = await surface.grpc(get, get.request_type(name="nowhere"), headers_for())
        assert (missing.code, missing.message) == ("not_found", "room nowhere not found")


class TestProjects:
    """Design section 10: two rooms of one name, and no word of the other project's."""

    async def test_same_name_two_rooms(self, stage: RoomStage) -> None:
        mine = await room(stage, "shared name", metadata="mine")
        theirs = await room(stage, "shared name", OTHERS, metadata="theirs")
        assert (mine["name"], theirs["name"]) == ("shared name", "shared name")
        assert mine["sid"] != theirs["sid"]
        for headers, own, foreign in ((None, mine, theirs), (OTHERS, theirs, mine)):
            listed = await stage.rest("GET", "/v1/rooms", headers=headers)
            assert own["sid"] in listed.raw.decode()
            assert foreign["sid"] not in listed.raw.decode()
            assert b"bax:" not in listed.raw
            found = await stage.rest("GET", "/v1/rooms/shared%20name", headers=headers)
            assert found.reply["sid"] == own["sid"]
        assert (await stage.rest("DELETE", "/v1/rooms/shared%20name", headers=OTHERS)).status == 204
        assert (await stage.rest("GET", "/v1/rooms/shared%20name")).reply["metadata"] == "mine"

    async def test_participants_are_apart(self, stage: RoomStage) -> None:
        await stage.join("apart", "alice")
        await stage.join("apart", "alice", OTHERS)
        mine = await stage.rest("GET", "/v1/rooms/apart/participants")
        theirs = await stage.rest("GET", "/v1/rooms/apart/participants", headers=OTHERS)
        assert mine.reply["items"][0]["sid"] != theirs.reply["items"][0]["sid"]
        assert (mine.reply["total"], theirs.reply["total"]) == (1, 1)

    @pytest.mark.parametrize(
        ("verb", "path", "body"),
        [
            ("GET", "/v1/rooms/{}", None),
            ("DELETE", "/v1/rooms/{}", None),
            ("PATCH", "/v1/rooms/{}/metadata", {"metadata": "x"}),
            ("GET", "/v1/rooms/{}/participants", None),
            ("DELETE", "/v1/rooms/{}/participants/alice", None),
            ("PATCH", "/v1/rooms/{}/participants/alice/metadata", {"metadata": "x"}),
        ],
    )
    async def test_foreign_is_unknown(self, stage: RoomStage, verb: str, path: str, body: Any) -> None:
        """404, the same for another project's room, by its own or its hidden name, as for none.

        RM-09, RM-10, RM-11, PT-03.
        """
        await room(stage, "theirs", OTHERS)
        await stage.join("theirs", "alice", OTHERS)
        answers = {}
        for name in ("theirs", f"bax:{OTHER_PROJECT}:theirs", "nothing"):
            answer = await stage.rest(verb, path.format(name), body)
            answers[name] = (answer.status, answer.code, answer.message.replace(name, "NAME"))
        assert set(answers.values()) == {answers["nothing"]}
        assert answers["nothing"][0] == 404
        assert (await stage.rest("GET", "/v1/rooms/theirs", headers=OTHERS)).reply["numParticipants"] == 1


class TestFaults:
    async def test_livekit_is_away(
        self, sqlite_database: SqlDatabase, hook_port: int, tmp_path: Path, eventually: Eventually
    ) -> None:
        """Every call that needs it answers 503 with the cause at once; tokens need only its key."""
        with livekit_server(tmp_path) as server:
            async with room_stage(sqlite_database, server.address, hook_port, eventually) as stage:
                await room(stage, "r")
                server.kill()
                for verb, path, body in (
                    ("POST", "/v1/rooms", {"name": "r"}),
                    ("GET", "/v1/rooms", None),
                    ("GET", "/v1/rooms/r", None),
                    ("DELETE", "/v1/rooms/r", None),
                    ("PATCH", "/v1/rooms/r/metadata", {"metadata": "x"}),
                    ("GET", "/v1/rooms/r/participants", None),
                    ("DELETE", "/v1/rooms/r/participants/p", None),
                    ("PATCH", "/v1/rooms/r/participants/p/metadata", {"metadata": "x"}),
                ):
                    answer = await stage.rest(verb, path, body)
                    assert (answer.status, "cannot be reached" in answer.message) == (503, True), answer
                assert await stage.token("r", "i")
                await asyncio.to_thread(server.start)
                assert (await stage.rest("GET", "/v1/rooms/r")).status == 404


class TestTokens:
    async def test_sample(self, stage: RoomStage) -> None:
        """GN-17: neither the caller's key nor the secret that signs it is in a token.

        TK-01, TK-02, TK-03, TK-04, TK-05, TK-06, TK-07, TK-08, TK-09, TK-10, TK-11, B-51.
        """
        body = {
            "roomName": "my-meeting",
            "participantIdentity": "user-123",
            "participantName": "John Doe",
            "ttl": 3600,
            "metadata": "about me",
            "grants": {"canPublish": True, "canSubscribe": True, "canPublishData": True},
        }
        began = int(time.time())
        answer = await stage.rest("POST", "/v1/tokens", body)
        assert answer.status == 200
        assert answer.reply.keys() == {"token", "roomName", "participantIdentity", "expiresAt", "url"}
        assert answer.reply["url"] == stage.address.public_url
        opened = jwt.decode_complete(answer.reply["token"], stage.address.api_secret, algorithms=["HS256"])
        for secret in (KEY, stage.address.api_secret):
            assert secret not in f"{opened['header']} {opened['payload']} {answer.raw!r}"
        claims = opened["payload"]
        assert began <= claims.pop("nbf") <= began + 5
        assert began + 3600 <= claims.pop("exp") <= began + 3605
        assert claims == {
            "iss": stage.address.api_key,
            "sub": "user-123",
            "name": "John Doe",
            "metadata": "about me",
            "video": {
                "roomJoin": True,
                "room": "my-meeting",
                "canPublish": True,
                "canSubscribe": True,
                "canPublishData": True,
                "canUpdateOwnMetadata": False,
            },
        }

    async def test_defaults(self, stage: RoomStage) -> None:
        """B-51"""
        claims = await self.claims(stage)
        assert claims["exp"] - claims["nbf"] == 21600
        assert {key: claims["video"][key] for key in claims["video"] if key.startswith("can")} == {
            "canPublish": True,
            "canSubscribe": True,
            "canPublishData": True,
            "canUpdateOwnMetadata": False,
        }
        assert claims.keys() == {"iss", "sub", "nbf", "exp", "video"}

    @pytest.mark.parametrize("name", ["canPublish", "canSubscribe", "canPublishData", "canUpdateOwnMetadata"])
    @pytest.mark.parametrize("value", [True, False])
    async def test_each_grant(self, stage: RoomStage, name: str, value: bool) -> None:
        """TK-07, TK-08, TK-09, TK-10, TK-13: explicit false is there."""
        assert (await self.claims(stage, grants={name: value}))["video"][name] is value

    async def test_presets(self, stage: RoomStage) -> None:
        """TK-12, TK-13"""
        everything = ("canPublish", "canSubscribe", "canPublishData", "canUpdateOwnMetadata")
        host = await self.claims(stage, ttl=7200, grants=dict.fromkeys(everything, True))
        assert all(host["video"][name] is True for name in everything)
        viewer = await self.claims(
            stage, grants={"canPublish": False, "canSubscribe": True, "canPublishData": True}
        )
        assert viewer["video"]["canPublish"] is False

    async def test_the_other_projects_room_is_named_apart(self, stage: RoomStage) -> None:
        claims = await self.claims(stage, OTHERS)
        assert claims["video"]["room"] == f"bax:{OTHER_PROJECT}:r"
        answer = await stage.rest("POST", "/v1/tokens", {"roomName": "r", "participantIdentity": "i"}, OTHERS)
        assert answer.reply["roomName"] == "r"

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"roomName": ""}, "roomName"),
            ({"roomName": f"bax:{OTHER_PROJECT}:r"}, "roomName"),
            ({"participantIdentity": ""}, "participantIdentity"),
            ({"participantIdentity": "ü" * 200}, "participantIdentity"),
            ({"participantName": "x" * 257}, "participantName"),
            ({"ttl": 0}, "ttl"),
            ({"ttl": -1}, "ttl"),
            ({"ttl": 1.5}, "ttl"),
            ({"ttl": 2592001}, "ttl"),
        ],
    )
    async def test_bad_tokens(self, stage: RoomStage, changes: Any, named: str) -> None:
        """TK-04, TK-06"""
        body = {"roomName": "r", "participantIdentity": "i", **changes}
        answer = await stage.rest("POST", "/v1/tokens", body)
        assert (answer.status, named in answer.message) == (400, True), answer

    async def test_livekit_lets_in_whoever_has_one(self, stage: RoomStage) -> None:
        """TK-11; and a viewer may not publish (TK-13)."""
        from livekit import rtc

        viewer = await stage.join("entry", "viewer", participantName="V", grants={"canPublish": False})
        assert viewer.local_participant.identity == "viewer"
        source = rtc.AudioSource(48000, 1)
        track = rtc.LocalAudioTrack.create_audio_track("mic", source)
        with pytest.raises(Exception, match=r"(?i)permission|timeout|timed out"):
            await viewer.local_participant.publish_track(track)

    @staticmethod
    async def claims(stage: RoomStage, headers: Any = None, **more: Any) -> Any:
        token = await stage.token("r", "i", headers, **more)
        return jwt.decode(token, stage.address.api_secret, algorithms=["HS256"])


class TestParticipants:
    async def test_sample(self, stage: RoomStage) -> None:
        """PT-01, PT-02, PT-04: listed with name, identity and state; metadata replaced."""
        await stage.join("my-room", "user-123", participantName="John", metadata="first")

        async def there() -> Any:
            answer = await stage.rest("GET", "/v1/rooms/my-room/participants")
            # LiveKit may hear of it after them.
            return answer if [one["state"] for one in answer.reply["items"]] == ["ACTIVE"] else None

        listed = await stage.eventually(there)
        [john] = listed.reply["items"]
        assert (john["name"], john["identity"]) == ("John", "user-123")
        assert john["sid"].startswith("PA_")
        assert (john["metadata"], john["isPublisher"], john["tracks"]) == ("first", False, [])
        assert listed.reply["total"] == 1

        path = "/v1/rooms/my-room/participants/user-123/metadata"
        changed = await stage.rest("PATCH", path, {"metadata": '{"role": "moderator"}'})
        assert (changed.status, changed.reply["metadata"]) == (200, '{"role": "moderator"}')
        again = (await stage.rest("GET", "/v1/rooms/my-room/participants")).reply["items"]
        assert again[0]["metadata"] == '{"role": "moderator"}'
        assert (await stage.rest("GET", "/v1/rooms/my-room")).reply["numParticipants"] == 1

    async def test_kick(self, stage: RoomStage) -> None:
        """PT-03"""
        visit = await stage.join("kick", "a/b ü")
        answer = await stage.rest("DELETE", "/v1/rooms/kick/participants/a%2Fb%20%C3%BC")
        assert answer.status == 204
        await stage.eventually(lambda: not visit.isconnected())
        assert (await stage.rest("GET", "/v1/rooms/kick/participants")).reply["total"] == 0
        again = await stage.rest("DELETE", "/v1/rooms/kick/participants/a%2Fb%20%C3%BC")
        assert (again.status, again.message) == (404, "participant a/b ü not found")

    async def test_metadata_cannot_be_cleared(self, stage: RoomStage) -> None:
        """LiveKit answers 200 to an empty text and keeps the old one; we say so."""
        await stage.join("clear-one", "with", metadata="m")
        await stage.join("clear-one", "without")
        path = "/v1/rooms/clear-one/participants/{}/metadata"
        refused = await stage.rest("PATCH", path.format("with"), {"metadata": ""})
        assert (refused.status, "metadata" in refused.message) == (400, True)
        assert (await stage.rest("PATCH", path.format("without"), {"metadata": ""})).status == 200

    async def test_recorders_are_not_people(self, stage: RoomStage) -> None:
        """Recorders, streams and agents are not listed or counted; a recorder is not to be touched at all."""
        for identity, kind, hidden in (
            ("EG_rec", "egress", True),
            ("obs", "ingress", False),
            ("helper", "agent", False),
        ):
            await stage.connect(machine_token(stage, "machines", identity, kind, hidden=hidden))
        await stage.join("machines", "alice")
        listed = await stage.rest("GET", "/v1/rooms/machines/participants")
        assert [one["identity"] for one in listed.reply["items"]] == ["alice"]
        [found] = [
            one for one in (await stage.rest("GET", "/v1/rooms")).reply["items"] if one["name"] == "machines"
        ]
        assert found["numParticipants"] == 1
        path = "/v1/rooms/machines/participants/EG_rec"
        assert (await stage.rest("DELETE", path)).status == 404
        assert (await stage.rest("PATCH", f"{path}/metadata", {"metadata": "x"})).status == 404

    async def test_unknown(self, stage: RoomStage) -> None:
        await room(stage, "known")
        assert (await stage.rest("GET", "/v1/rooms/known/participants")).reply == {"items": [], "total": 0}
        assert (await stage.rest("GET", "/v1/rooms/unknown/participants")).status == 404
        for name in ("known", "unknown"):
            path = f"/v1/rooms/{name}/participants/nobody"
            assert (await stage.rest("DELETE", path)).status == 404
            assert (await stage.rest("PATCH", f"{path}/metadata", {"metadata": "x"})).status == 404


def machine_token(stage: RoomStage, room_name: str, identity: str, kind: str, *, hidden: bool = False) -> str:
    """As an egress, ingress or agent brings along."""
    claims = {
        "iss": stage.address.api_key,
        "sub": identity,
        "exp": int(time.time()) + 600,
        "kind": kind,
        "video": {"roomJoin": True, "room": room_name, "hidden": hidden, "recorder": hidden},
    }
    return jwt.encode(claims, stage.address.api_secret, algorithm="HS256")
