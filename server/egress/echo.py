"""What a request was, to be shown again: everything but its secrets (livekit-surface.md 2.2, 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from server.domain.web_proxy import proxy_address
from server.egress.stream_urls import echoed
from server.egress.validation import is_endpoint

REQUEST_NAMES: Mapping[str, str] = {
    "RoomCompositeEgressRequest": "room_composite",
    "WebEgressRequest": "web",
    "ParticipantEgressRequest": "participant",
    "TrackCompositeEgressRequest": "track_composite",
    "TrackEgressRequest": "track",
    "StartEgressRequest": "egress",
}
"""Request messages by the field of `EgressInfo` that shows them."""

# LiveKit hides the first three kinds only in lists of one entry and not at all inside `StartEgressRequest`; and it
# shows what opens a proxy. Here nothing is left out.
_HIDDEN: Mapping[str, Mapping[str, str]] = {
    "S3Upload": {
        "access_key": "{access_key}",
        "secret": "{secret}",
        "session_token": "{session_token}",
        "assume_role_external_id": "{external_id}",
    },
    "GCPUpload": {"credentials": "{credentials}"},
    "AzureBlobUpload": {"account_name": "{account_name}", "account_key": "{account_key}"},
    "AliOSSUpload": {"access_key": "{access_key}", "secret": "{secret}"},
    "ProxyConfig": {"username": "{username}", "password": "{password}"},
}


def echo_of(request: Any) -> Mapping[str, Any]:
    """`{"type": "room_composite", "body": {…}}`, the body as proto3 JSON; the request itself stays as it is."""
    shown = type(request)()
    shown.CopyFrom(request)
    shown.DiscardUnknownFields()
    hide_secrets(shown)
    return {"type": REQUEST_NAMES[request.DESCRIPTOR.name], "body": json_format.MessageToDict(shown)}


def hide_secrets(message: Any) -> None:
    """In place, at any depth: what is empty stays empty.

    Not all of it was read: an output that another one replaces, or a storage that doesn't count, may hold any text.
    """
    name = message.DESCRIPTOR.name
    for field, placeholder in _HIDDEN.get(name, {}).items():
        if getattr(message, field):
            setattr(message, field, placeholder)
    if name == "ProxyConfig":
        message.url = _proxy_shown(message.url)
    elif name in ("S3Upload", "AliOSSUpload") and not is_endpoint(message.endpoint):
        message.endpoint = ""
    elif name == "StreamOutput":
        message.urls[:] = [echoed(url) for url in message.urls]
    elif name == "StreamDestination":
        message.url = echoed(message.url)
    elif name == "TrackEgressRequest" and message.websocket_url:
        message.websocket_url = echoed(message.websocket_url)
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for inner in value if field.is_repeated else (value,):
            if isinstance(inner, Message):
                hide_secrets(inner)


def _proxy_shown(url: str) -> str:
    """As it is used, but for its login; nothing of what cannot be read, in which a login may stand anywhere."""
    try:
        return proxy_address(url).origin if url else ""
    except ValueError:
        return ""
