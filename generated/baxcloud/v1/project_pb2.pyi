import datetime

from generated.baxcloud.v1 import common_pb2 as _common_pb2
from generated.baxcloud.v1 import options_pb2 as _options_pb2
from generated.buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Plan(_message.Message):
    __slots__ = ("cents_per_rendition_minute", "included_categorization_jobs", "included_moderation_jobs", "categorization_overage_cents", "moderation_overage_cents")
    CENTS_PER_RENDITION_MINUTE_FIELD_NUMBER: _ClassVar[int]
    INCLUDED_CATEGORIZATION_JOBS_FIELD_NUMBER: _ClassVar[int]
    INCLUDED_MODERATION_JOBS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZATION_OVERAGE_CENTS_FIELD_NUMBER: _ClassVar[int]
    MODERATION_OVERAGE_CENTS_FIELD_NUMBER: _ClassVar[int]
    cents_per_rendition_minute: float
    included_categorization_jobs: int
    included_moderation_jobs: int
    categorization_overage_cents: float
    moderation_overage_cents: float
    def __init__(self, cents_per_rendition_minute: _Optional[float] = ..., included_categorization_jobs: _Optional[int] = ..., included_moderation_jobs: _Optional[int] = ..., categorization_overage_cents: _Optional[float] = ..., moderation_overage_cents: _Optional[float] = ...) -> None: ...

class Project(_message.Message):
    __slots__ = ("id", "name", "s3_config", "plan", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    S3_CONFIG_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    s3_config: _common_pb2.S3Settings
    plan: Plan
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., s3_config: _Optional[_Union[_common_pb2.S3Settings, _Mapping]] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateProjectRequest(_message.Message):
    __slots__ = ("name", "id", "s3_config", "plan")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    S3_CONFIG_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    name: str
    id: str
    s3_config: _common_pb2.S3Config
    plan: Plan
    def __init__(self, name: _Optional[str] = ..., id: _Optional[str] = ..., s3_config: _Optional[_Union[_common_pb2.S3Config, _Mapping]] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ...) -> None: ...

class ListProjectsRequest(_message.Message):
    __slots__ = ("page", "limit", "page_size")
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    page: int
    limit: int
    page_size: int
    def __init__(self, page: _Optional[int] = ..., limit: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class ListProjectsResponse(_message.Message):
    __slots__ = ("items", "total", "page", "limit")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Project]
    total: int
    page: int
    limit: int
    def __init__(self, items: _Optional[_Iterable[_Union[Project, _Mapping]]] = ..., total: _Optional[int] = ..., page: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class GetProjectRequest(_message.Message):
    __slots__ = ("project_id",)
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    def __init__(self, project_id: _Optional[str] = ...) -> None: ...

class UpdateProjectRequest(_message.Message):
    __slots__ = ("project_id", "name", "plan")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    name: str
    plan: Plan
    def __init__(self, project_id: _Optional[str] = ..., name: _Optional[str] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ...) -> None: ...

class SetS3ConfigRequest(_message.Message):
    __slots__ = ("project_id", "s3_config")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    S3_CONFIG_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    s3_config: _common_pb2.S3Config
    def __init__(self, project_id: _Optional[str] = ..., s3_config: _Optional[_Union[_common_pb2.S3Config, _Mapping]] = ...) -> None: ...

class CreateApiKeyRequest(_message.Message):
    __slots__ = ("project_id", "name", "baxstream")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BAXSTREAM_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    name: str
    baxstream: bool
    def __init__(self, project_id: _Optional[str] = ..., name: _Optional[str] = ..., baxstream: _Optional[bool] = ...) -> None: ...

class ApiKey(_message.Message):
    __slots__ = ("id", "name", "key", "baxstream", "created_at", "last_used_at", "revoked_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    BAXSTREAM_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_AT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    key: str
    baxstream: bool
    created_at: _timestamp_pb2.Timestamp
    last_used_at: _timestamp_pb2.Timestamp
    revoked_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., key: _Optional[str] = ..., baxstream: _Optional[bool] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_used_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoked_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListApiKeysRequest(_message.Message):
    __slots__ = ("project_id",)
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    def __init__(self, project_id: _Optional[str] = ...) -> None: ...

class ListApiKeysResponse(_message.Message):
    __slots__ = ("items", "total")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ApiKey]
    total: int
    def __init__(self, items: _Optional[_Iterable[_Union[ApiKey, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class RevokeApiKeyRequest(_message.Message):
    __slots__ = ("project_id", "key_id")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    key_id: str
    def __init__(self, project_id: _Optional[str] = ..., key_id: _Optional[str] = ...) -> None: ...

class CreateLiveKitKeyRequest(_message.Message):
    __slots__ = ("project_id",)
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    def __init__(self, project_id: _Optional[str] = ...) -> None: ...

class LiveKitKey(_message.Message):
    __slots__ = ("api_key", "api_secret", "created_at")
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    API_SECRET_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    api_key: str
    api_secret: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, api_key: _Optional[str] = ..., api_secret: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListLiveKitKeysRequest(_message.Message):
    __slots__ = ("project_id",)
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    def __init__(self, project_id: _Optional[str] = ...) -> None: ...

class ListLiveKitKeysResponse(_message.Message):
    __slots__ = ("items", "total")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[LiveKitKey]
    total: int
    def __init__(self, items: _Optional[_Iterable[_Union[LiveKitKey, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class RevokeLiveKitKeyRequest(_message.Message):
    __slots__ = ("project_id", "api_key")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    api_key: str
    def __init__(self, project_id: _Optional[str] = ..., api_key: _Optional[str] = ...) -> None: ...

class GetUsageRequest(_message.Message):
    __slots__ = ("project_id",)
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    def __init__(self, project_id: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("project_id", "conversion_jobs", "conversion_seconds", "conversion_cents", "categorization_jobs", "categorization_included", "categorization_overage", "moderation_jobs", "moderation_included", "moderation_overage", "ai_overage_cents")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_JOBS_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CONVERSION_CENTS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZATION_JOBS_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZATION_INCLUDED_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZATION_OVERAGE_FIELD_NUMBER: _ClassVar[int]
    MODERATION_JOBS_FIELD_NUMBER: _ClassVar[int]
    MODERATION_INCLUDED_FIELD_NUMBER: _ClassVar[int]
    MODERATION_OVERAGE_FIELD_NUMBER: _ClassVar[int]
    AI_OVERAGE_CENTS_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    conversion_jobs: int
    conversion_seconds: int
    conversion_cents: int
    categorization_jobs: int
    categorization_included: int
    categorization_overage: int
    moderation_jobs: int
    moderation_included: int
    moderation_overage: int
    ai_overage_cents: float
    def __init__(self, project_id: _Optional[str] = ..., conversion_jobs: _Optional[int] = ..., conversion_seconds: _Optional[int] = ..., conversion_cents: _Optional[int] = ..., categorization_jobs: _Optional[int] = ..., categorization_included: _Optional[int] = ..., categorization_overage: _Optional[int] = ..., moderation_jobs: _Optional[int] = ..., moderation_included: _Optional[int] = ..., moderation_overage: _Optional[int] = ..., ai_overage_cents: _Optional[float] = ...) -> None: ...
