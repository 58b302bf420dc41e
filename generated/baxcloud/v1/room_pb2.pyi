import datetime

from generated.baxcloud.v1 import options_pb2 as _options_pb2
from generated.buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Room(_message.Message):
    __slots__ = ("name", "sid", "max_participants", "empty_timeout", "metadata", "enable_recording", "num_participants", "active_recording", "created_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    MAX_PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    EMPTY_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ENABLE_RECORDING_FIELD_NUMBER: _ClassVar[int]
    NUM_PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_RECORDING_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    sid: str
    max_participants: int
    empty_timeout: int
    metadata: str
    enable_recording: bool
    num_participants: int
    active_recording: bool
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., sid: _Optional[str] = ..., max_participants: _Optional[int] = ..., empty_timeout: _Optional[int] = ..., metadata: _Optional[str] = ..., enable_recording: _Optional[bool] = ..., num_participants: _Optional[int] = ..., active_recording: _Optional[bool] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateRoomRequest(_message.Message):
    __slots__ = ("name", "max_participants", "empty_timeout", "metadata", "enable_recording")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    EMPTY_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ENABLE_RECORDING_FIELD_NUMBER: _ClassVar[int]
    name: str
    max_participants: int
    empty_timeout: int
    metadata: str
    enable_recording: bool
    def __init__(self, name: _Optional[str] = ..., max_participants: _Optional[int] = ..., empty_timeout: _Optional[int] = ..., metadata: _Optional[str] = ..., enable_recording: _Optional[bool] = ...) -> None: ...

class ListRoomsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRoomsResponse(_message.Message):
    __slots__ = ("items", "total")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Room]
    total: int
    def __init__(self, items: _Optional[_Iterable[_Union[Room, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class GetRoomRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteRoomRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UpdateRoomMetadataRequest(_message.Message):
    __slots__ = ("name", "metadata")
    NAME_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    name: str
    metadata: str
    def __init__(self, name: _Optional[str] = ..., metadata: _Optional[str] = ...) -> None: ...

class TokenGrants(_message.Message):
    __slots__ = ("can_publish", "can_subscribe", "can_publish_data", "can_update_own_metadata")
    CAN_PUBLISH_FIELD_NUMBER: _ClassVar[int]
    CAN_SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    CAN_PUBLISH_DATA_FIELD_NUMBER: _ClassVar[int]
    CAN_UPDATE_OWN_METADATA_FIELD_NUMBER: _ClassVar[int]
    can_publish: bool
    can_subscribe: bool
    can_publish_data: bool
    can_update_own_metadata: bool
    def __init__(self, can_publish: _Optional[bool] = ..., can_subscribe: _Optional[bool] = ..., can_publish_data: _Optional[bool] = ..., can_update_own_metadata: _Optional[bool] = ...) -> None: ...

class CreateTokenRequest(_message.Message):
    __slots__ = ("room_name", "participant_identity", "participant_name", "ttl", "metadata", "grants")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_NAME_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    participant_identity: str
    participant_name: str
    ttl: int
    metadata: str
    grants: TokenGrants
    def __init__(self, room_name: _Optional[str] = ..., participant_identity: _Optional[str] = ..., participant_name: _Optional[str] = ..., ttl: _Optional[int] = ..., metadata: _Optional[str] = ..., grants: _Optional[_Union[TokenGrants, _Mapping]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("token", "room_name", "participant_identity", "expires_at", "url")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    token: str
    room_name: str
    participant_identity: str
    expires_at: _timestamp_pb2.Timestamp
    url: str
    def __init__(self, token: _Optional[str] = ..., room_name: _Optional[str] = ..., participant_identity: _Optional[str] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., url: _Optional[str] = ...) -> None: ...

class Track(_message.Message):
    __slots__ = ("sid", "type", "source", "muted")
    SID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MUTED_FIELD_NUMBER: _ClassVar[int]
    sid: str
    type: str
    source: str
    muted: bool
    def __init__(self, sid: _Optional[str] = ..., type: _Optional[str] = ..., source: _Optional[str] = ..., muted: _Optional[bool] = ...) -> None: ...

class Participant(_message.Message):
    __slots__ = ("identity", "name", "state", "sid", "metadata", "joined_at", "is_publisher", "tracks")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        JOINING: _ClassVar[Participant.State]
        JOINED: _ClassVar[Participant.State]
        ACTIVE: _ClassVar[Participant.State]
        DISCONNECTED: _ClassVar[Participant.State]
    JOINING: Participant.State
    JOINED: Participant.State
    ACTIVE: Participant.State
    DISCONNECTED: Participant.State
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    JOINED_AT_FIELD_NUMBER: _ClassVar[int]
    IS_PUBLISHER_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    identity: str
    name: str
    state: Participant.State
    sid: str
    metadata: str
    joined_at: _timestamp_pb2.Timestamp
    is_publisher: bool
    tracks: _containers.RepeatedCompositeFieldContainer[Track]
    def __init__(self, identity: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[_Union[Participant.State, str]] = ..., sid: _Optional[str] = ..., metadata: _Optional[str] = ..., joined_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., is_publisher: _Optional[bool] = ..., tracks: _Optional[_Iterable[_Union[Track, _Mapping]]] = ...) -> None: ...

class ListParticipantsRequest(_message.Message):
    __slots__ = ("room_name",)
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    def __init__(self, room_name: _Optional[str] = ...) -> None: ...

class ListParticipantsResponse(_message.Message):
    __slots__ = ("items", "total")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Participant]
    total: int
    def __init__(self, items: _Optional[_Iterable[_Union[Participant, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class RemoveParticipantRequest(_message.Message):
    __slots__ = ("room_name", "identity")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    identity: str
    def __init__(self, room_name: _Optional[str] = ..., identity: _Optional[str] = ...) -> None: ...

class UpdateParticipantMetadataRequest(_message.Message):
    __slots__ = ("room_name", "identity", "metadata")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    identity: str
    metadata: str
    def __init__(self, room_name: _Optional[str] = ..., identity: _Optional[str] = ..., metadata: _Optional[str] = ...) -> None: ...
