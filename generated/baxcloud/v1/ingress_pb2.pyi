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

class Ingress(_message.Message):
    __slots__ = ("id", "input_type", "room_name", "participant_identity", "participant_name", "enable_transcoding", "status", "rtmps_url", "rtmp_url", "stream_key", "whip_url", "token", "error_message", "created_at")
    class InputType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INPUT_TYPE_UNSPECIFIED: _ClassVar[Ingress.InputType]
        RTMP_INPUT: _ClassVar[Ingress.InputType]
        WHIP_INPUT: _ClassVar[Ingress.InputType]
    INPUT_TYPE_UNSPECIFIED: Ingress.InputType
    RTMP_INPUT: Ingress.InputType
    WHIP_INPUT: Ingress.InputType
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[Ingress.Status]
        INACTIVE: _ClassVar[Ingress.Status]
        BUFFERING: _ClassVar[Ingress.Status]
        ACTIVE: _ClassVar[Ingress.Status]
        COMPLETE: _ClassVar[Ingress.Status]
        FAILED: _ClassVar[Ingress.Status]
    STATUS_UNSPECIFIED: Ingress.Status
    INACTIVE: Ingress.Status
    BUFFERING: Ingress.Status
    ACTIVE: Ingress.Status
    COMPLETE: Ingress.Status
    FAILED: Ingress.Status
    ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_NAME_FIELD_NUMBER: _ClassVar[int]
    ENABLE_TRANSCODING_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    RTMPS_URL_FIELD_NUMBER: _ClassVar[int]
    RTMP_URL_FIELD_NUMBER: _ClassVar[int]
    STREAM_KEY_FIELD_NUMBER: _ClassVar[int]
    WHIP_URL_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    input_type: Ingress.InputType
    room_name: str
    participant_identity: str
    participant_name: str
    enable_transcoding: bool
    status: Ingress.Status
    rtmps_url: str
    rtmp_url: str
    stream_key: str
    whip_url: str
    token: str
    error_message: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., input_type: _Optional[_Union[Ingress.InputType, str]] = ..., room_name: _Optional[str] = ..., participant_identity: _Optional[str] = ..., participant_name: _Optional[str] = ..., enable_transcoding: _Optional[bool] = ..., status: _Optional[_Union[Ingress.Status, str]] = ..., rtmps_url: _Optional[str] = ..., rtmp_url: _Optional[str] = ..., stream_key: _Optional[str] = ..., whip_url: _Optional[str] = ..., token: _Optional[str] = ..., error_message: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateIngressRequest(_message.Message):
    __slots__ = ("input_type", "room_name", "participant_identity", "participant_name", "enable_transcoding", "bypass_transcoding")
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_NAME_FIELD_NUMBER: _ClassVar[int]
    ENABLE_TRANSCODING_FIELD_NUMBER: _ClassVar[int]
    BYPASS_TRANSCODING_FIELD_NUMBER: _ClassVar[int]
    input_type: Ingress.InputType
    room_name: str
    participant_identity: str
    participant_name: str
    enable_transcoding: bool
    bypass_transcoding: bool
    def __init__(self, input_type: _Optional[_Union[Ingress.InputType, str]] = ..., room_name: _Optional[str] = ..., participant_identity: _Optional[str] = ..., participant_name: _Optional[str] = ..., enable_transcoding: _Optional[bool] = ..., bypass_transcoding: _Optional[bool] = ...) -> None: ...

class ListIngressRequest(_message.Message):
    __slots__ = ("room_name", "page", "limit", "page_size")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    page: int
    limit: int
    page_size: int
    def __init__(self, room_name: _Optional[str] = ..., page: _Optional[int] = ..., limit: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class ListIngressResponse(_message.Message):
    __slots__ = ("items", "total", "page", "limit")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Ingress]
    total: int
    page: int
    limit: int
    def __init__(self, items: _Optional[_Iterable[_Union[Ingress, _Mapping]]] = ..., total: _Optional[int] = ..., page: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class GetIngressRequest(_message.Message):
    __slots__ = ("ingress_id",)
    INGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    ingress_id: str
    def __init__(self, ingress_id: _Optional[str] = ...) -> None: ...

class DeleteIngressRequest(_message.Message):
    __slots__ = ("ingress_id",)
    INGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    ingress_id: str
    def __init__(self, ingress_id: _Optional[str] = ...) -> None: ...
