"""Whatever a request holds, it is accepted or refused in so many words, and no secret of it is shown."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from livekit.protocol import egress as pb

from server.egress.echo import REQUEST_NAMES, echo_of
from server.egress.egress_info import egress_info
from server.errors import ServiceError
from tests.unit.egress.egresses import accepted_of, egress_of

ROUNDS = 400
MARKER = "MarkedSecret"
_TEXTS = (
    "", "a", "a/b.mp4", "../x", "grid", "{room_name}", "\0", "https://h/p", f"rtmp://h/app/{MARKER}key", f"mux://{MARKER}key",
    f"srt://h:9000?streamid={MARKER}key", f"wss://h/in?k={MARKER}key", f"{MARKER}key", "rtmp://[", "\u202e", "ü" * 50,
)  # fmt: skip
_SECRET_FIELDS = {
    "access_key", "secret", "session_token", "credentials", "account_key", "account_name", "password", "username",
    "assume_role_external_id",
}  # fmt: skip


def filled(message: Any, chance: random.Random, left_out: float, depth: int = 0) -> Message:
    """With some of its fields set to anything that their type allows."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < left_out or (field.message_type and depth > 3):
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)["k"] = "v"
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(chance.choice((1, 1, 1, 2))):
                if field.message_type:
                    filled(values.add(), chance, left_out, depth + 1)
                else:
                    values.append(value_of(field, chance))
        elif field.message_type:
            getattr(message, field.name).SetInParent()
            filled(getattr(message, field.name), chance, left_out, depth + 1)
        else:
            setattr(message, field.name, value_of(field, chance))
    return message  # type: ignore[no-any-return]


def value_of(field: FieldDescriptor, chance: random.Random) -> Any:
    if field.enum_type:
        return chance.choice([0, 1, 2, 3, 99])
    if field.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.3
    if field.name == "url" and chance.random() < 0.7:
        return "https://h/p"
    if field.type == FieldDescriptor.TYPE_STRING:
        return f"{MARKER}{field.name}" if field.name in _SECRET_FIELDS else chance.choice(_TEXTS)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return chance.choice([0.0, 2.0, -1.0, 1e300, float("nan"), float("inf")])
    low = 0 if field.type == FieldDescriptor.TYPE_UINT32 else -1
    return chance.choice([0, 0, 2, 16, 24, 30, 640, 44100, 2**31 - 1, low])


def refusal_of(kind: str, body: Mapping[str, Any]) -> str:
    """ "" for a request that is accepted."""
    try:
        accepted_of(kind, body)
    except ServiceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", REQUEST_NAMES)
def test_anything(kind: str) -> None:
    """Nothing but a ServiceError, whose text holds no secret; what is shown holds none.

    Trap 12, LK-96, LK-104, LK-108, LK-111, LK-136.
    """
    chance = random.Random(kind)
    accepted = 0
    for _ in range(ROUNDS):
        request = filled(getattr(pb, kind)(), chance, chance.uniform(0.4, 0.95))
        shown = str(json_format.ParseDict(echo_of(request)["body"], getattr(pb, kind)()))
        shown = shown.replace(f"{{{MARKER[:3]}...key}}", "")
        body = json_format.MessageToDict(request)
        refusal = refusal_of(kind, body)
        assert MARKER not in refusal
        if refusal:
            continue
        # Only what was accepted is ever stored and shown.
        accepted += 1
        for field in _SECRET_FIELDS:
            assert f"{MARKER}{field}" not in shown
        json_format.ParseDict(egress_info(egress_of(kind, body)), pb.EgressInfo())
    assert accepted > 0
