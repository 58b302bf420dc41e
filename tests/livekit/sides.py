"""One call made to LiveKit itself and to us, and what must be equal in the two answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from livekit.protocol import room as room_pb

from tests.livekit.stage import OTHERS, OWN, Answer, LiveKitStage, Pair

METHODS = {method.name: method for method in room_pb.DESCRIPTOR.services_by_name["RoomService"].methods}
JSON, PROTOBUF = "application/json", "application/protobuf"
# Seen on every error that LiveKit passes on from within; clients match on codes (livekit-surface.md 1.4).
WRAPPING = "twirp error unknown: "
# Where LiveKit only says that JSON is bad, we go on and name the field.
_OUR_ADDITION = re.compile(r"^(the json request could not be decoded): .*", re.DOTALL)
# Fields whose value is LiveKit's choice each time; only their types are compared.
_CHOSEN = {
    "sid", "creation_time", "creation_time_ms", "turn_password", "joined_at", "joined_at_ms", "version", "mid", "cid",
    "ssrcs", "region", "num_participants", "num_publishers", "updated_at", "timestamp_us", "start_time", "unix_micro",
    "ticks",
}  # fmt: skip
_CHOSEN |= {
    head + "".join(map(str.capitalize, rest)) for head, *rest in (name.split("_") for name in _CHOSEN)
}
_COMPARED_HEADERS = (
    "content-type", "vary", "x-content-type-options", "access-control-allow-origin", "access-control-expose-headers",
    "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Side:
    """Whom to ask, and as whom; `room` is this side's room, whose name no answer of ours may show otherwise."""

    name: str
    base: str
    pair: Pair
    room: str


def sides(stage: LiveKitStage, room: str) -> tuple[Side, Side, Side]:
    """LiveKit itself first, then us for the bootstrap project, then us for a project whose rooms have a prefix."""
    itself = Pair(stage.livekit.api_key, stage.livekit.api_secret)
    return (
        Side("livekit", stage.livekit.url, itself, f"{room}-direct"),
        Side("bootstrap", stage.url, OWN, f"{room}-ours"),
        Side("other", stage.url, OTHERS, f"{room}-other"),
    )


@dataclass(frozen=True, slots=True)
class Case:
    """A call. `{room}` in `body` and `video` is each side's own room; `raw` is sent instead of `body` if given."""

    method: str
    body: Mapping[str, Any] = field(default_factory=dict)
    video: Mapping[str, Any] | None = None
    raw: bytes | None = None
    kind: str = JSON
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.method}{' ' + self.note if self.note else ''} {self.kind.rpartition('/')[2]}"

    async def ask(self, stage: LiveKitStage, side: Side) -> Answer:
        video = filled(self.video, side.room)
        fields = filled(dict(self.body), side.room)
        body = self.raw
        if body is None and self.kind == PROTOBUF:
            body = request_of(self.method, fields).SerializeToString()
        token = None if video is None else side.pair.token(video)
        return await stage.ask(
            f"RoomService/{self.method}",
            fields if body is None else body,
            token,
            base=side.base,
            kind=self.kind,
        )


def request_of(method: str, body: Mapping[str, Any]) -> Message:
    request: Message = getattr(room_pb, METHODS[method].input_type.name)()
    return json_format.ParseDict(dict(body), request)


def filled(value: Any, room: str) -> Any:
    """`value` with each `{room}` replaced."""
    return None if value is None else json.loads(json.dumps(value).replace("{room}", room))


async def outcomes(stage: LiveKitStage, case: Case, asked: tuple[Side, ...]) -> list[Any]:
    """The comparable part of each side's answer."""
    answers = await asyncio.gather(*(case.ask(stage, side) for side in asked))
    return [comparable(case, answer, side) for answer, side in zip(answers, asked, strict=True)]


def comparable(case: Case, answer: Answer, side: Side) -> Any:
    """Status, headers, and the body with what LiveKit chooses reduced to its type."""
    headers = {name: answer.headers[name] for name in _COMPARED_HEADERS if name in answer.headers}
    body: Any
    if answer.content_type.startswith("text/plain"):
        body = answer.body.decode()
    elif answer.content_type == PROTOBUF:
        output = METHODS[case.method].output_type
        reply = _class_of(output).FromString(answer.body)
        body = json_format.MessageToDict(reply, preserving_proto_field_name=True)
    else:
        body = json.loads(answer.body) if answer.body else None
    return answer.status, headers, reduced(body, side.room)


def _class_of(descriptor: Any) -> Any:
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(descriptor)


def reduced(value: Any, room: str, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: reduced(inner, room, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [reduced(inner, room, key) for inner in value]
    if key in _CHOSEN:
        return type(value).__name__
    if isinstance(value, str):
        return _OUR_ADDITION.sub(r"\1", value.removeprefix(WRAPPING).replace(room, "{room}"))
    return value
