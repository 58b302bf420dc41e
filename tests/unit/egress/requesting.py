"""Start requests of LiveKit's in their JSON form, and what the reader makes of them, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf import json_format
from livekit.protocol import egress as pb

from server.egress.requests import Accepted, Capabilities, RequestReader, UrlChecks
from server.errors import Code, ServiceError

FILE = {"fileOutputs": [{"filepath": "a"}]}
RTMP = {"streamOutputs": [{"protocol": "RTMP", "urls": ["rtmp://h/app/key-1", "rtmp://i/app/key-2"]}]}
SEGMENTS = {"segmentOutputs": [{"filenamePrefix": "s"}]}
IMAGES = {"imageOutputs": [{"captureInterval": 5}]}
NO_CHECKS = UrlChecks(*[lambda url: None] * 3)
COMPOSITE = "RoomCompositeEgressRequest"
ROLE = "arn:aws:iam::123456789012:role/team/uploads"


def read(
    kind: str,
    body: Mapping[str, Any],
    *,
    room: str = "livekit-room",
    capabilities: Capabilities | None = None,
) -> Accepted:
    request = json_format.ParseDict(dict(body), getattr(pb, kind)())
    return RequestReader(capabilities or Capabilities(), NO_CHECKS).read(request, room)


def composite(**body: Any) -> Accepted:
    return read(COMPOSITE, {"roomName": "r", **body})


def refusal(kind: str, body: Mapping[str, Any], **more: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        read(kind, body, **more)
    return caught.value


def field_of(kind: str, body: Mapping[str, Any]) -> str:
    error = refusal(kind, body)
    assert error.code is Code.INVALID_ARGUMENT
    start = "request has missing or invalid field: "
    assert error.message.startswith(start)
    return error.message.removeprefix(start)
