from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Access(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCESS_UNSPECIFIED: _ClassVar[Access]
    ACCESS_PROJECT: _ClassVar[Access]
    ACCESS_BAXSTREAM: _ClassVar[Access]
    ACCESS_ADMIN: _ClassVar[Access]
    ACCESS_PROJECT_OR_ADMIN: _ClassVar[Access]
    ACCESS_RTCSTACK: _ClassVar[Access]
ACCESS_UNSPECIFIED: Access
ACCESS_PROJECT: Access
ACCESS_BAXSTREAM: Access
ACCESS_ADMIN: Access
ACCESS_PROJECT_OR_ADMIN: Access
ACCESS_RTCSTACK: Access
RULE_FIELD_NUMBER: _ClassVar[int]
rule: _descriptor.FieldDescriptor
REFUSE_EMPTY_FIELD_NUMBER: _ClassVar[int]
refuse_empty: _descriptor.FieldDescriptor

class MethodRule(_message.Message):
    __slots__ = ("access", "creates", "rest_status", "rest_envelope", "rest_problem", "sse_event")
    ACCESS_FIELD_NUMBER: _ClassVar[int]
    CREATES_FIELD_NUMBER: _ClassVar[int]
    REST_STATUS_FIELD_NUMBER: _ClassVar[int]
    REST_ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    REST_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    SSE_EVENT_FIELD_NUMBER: _ClassVar[int]
    access: Access
    creates: bool
    rest_status: int
    rest_envelope: bool
    rest_problem: bool
    sse_event: str
    def __init__(self, access: _Optional[_Union[Access, str]] = ..., creates: _Optional[bool] = ..., rest_status: _Optional[int] = ..., rest_envelope: _Optional[bool] = ..., rest_problem: _Optional[bool] = ..., sse_event: _Optional[str] = ...) -> None: ...
