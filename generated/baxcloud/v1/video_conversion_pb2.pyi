import datetime

from generated.baxcloud.v1 import common_pb2 as _common_pb2
from generated.baxcloud.v1 import options_pb2 as _options_pb2
from generated.buf.validate import validate_pb2 as _validate_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateConversionJobRequest(_message.Message):
    __slots__ = ("input_url", "output_formats", "ffmpeg_preset", "hls_time", "s3_config", "categorize", "moderate", "metadata")
    INPUT_URL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMATS_FIELD_NUMBER: _ClassVar[int]
    FFMPEG_PRESET_FIELD_NUMBER: _ClassVar[int]
    HLS_TIME_FIELD_NUMBER: _ClassVar[int]
    S3_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZE_FIELD_NUMBER: _ClassVar[int]
    MODERATE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    input_url: str
    output_formats: _containers.RepeatedScalarFieldContainer[str]
    ffmpeg_preset: str
    hls_time: float
    s3_config: _common_pb2.S3Config
    categorize: bool
    moderate: bool
    metadata: _struct_pb2.Value
    def __init__(self, input_url: _Optional[str] = ..., output_formats: _Optional[_Iterable[str]] = ..., ffmpeg_preset: _Optional[str] = ..., hls_time: _Optional[float] = ..., s3_config: _Optional[_Union[_common_pb2.S3Config, _Mapping]] = ..., categorize: _Optional[bool] = ..., moderate: _Optional[bool] = ..., metadata: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class UploadOptions(_message.Message):
    __slots__ = ("filename", "output_formats", "ffmpeg_preset", "hls_time", "s3_config", "categorize", "moderate", "metadata")
    FILENAME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMATS_FIELD_NUMBER: _ClassVar[int]
    FFMPEG_PRESET_FIELD_NUMBER: _ClassVar[int]
    HLS_TIME_FIELD_NUMBER: _ClassVar[int]
    S3_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZE_FIELD_NUMBER: _ClassVar[int]
    MODERATE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    filename: str
    output_formats: _containers.RepeatedScalarFieldContainer[str]
    ffmpeg_preset: str
    hls_time: float
    s3_config: _common_pb2.S3Config
    categorize: bool
    moderate: bool
    metadata: _struct_pb2.Value
    def __init__(self, filename: _Optional[str] = ..., output_formats: _Optional[_Iterable[str]] = ..., ffmpeg_preset: _Optional[str] = ..., hls_time: _Optional[float] = ..., s3_config: _Optional[_Union[_common_pb2.S3Config, _Mapping]] = ..., categorize: _Optional[bool] = ..., moderate: _Optional[bool] = ..., metadata: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class UploadVideoRequest(_message.Message):
    __slots__ = ("options", "chunk")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    options: UploadOptions
    chunk: bytes
    def __init__(self, options: _Optional[_Union[UploadOptions, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ConvertRecordingRequest(_message.Message):
    __slots__ = ("recording_id", "output_formats", "ffmpeg_preset", "hls_time", "s3_config", "categorize", "moderate", "metadata")
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMATS_FIELD_NUMBER: _ClassVar[int]
    FFMPEG_PRESET_FIELD_NUMBER: _ClassVar[int]
    HLS_TIME_FIELD_NUMBER: _ClassVar[int]
    S3_CONFIG_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZE_FIELD_NUMBER: _ClassVar[int]
    MODERATE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    recording_id: str
    output_formats: _containers.RepeatedScalarFieldContainer[str]
    ffmpeg_preset: str
    hls_time: float
    s3_config: _common_pb2.S3Config
    categorize: bool
    moderate: bool
    metadata: _struct_pb2.Value
    def __init__(self, recording_id: _Optional[str] = ..., output_formats: _Optional[_Iterable[str]] = ..., ffmpeg_preset: _Optional[str] = ..., hls_time: _Optional[float] = ..., s3_config: _Optional[_Union[_common_pb2.S3Config, _Mapping]] = ..., categorize: _Optional[bool] = ..., moderate: _Optional[bool] = ..., metadata: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class ConversionJob(_message.Message):
    __slots__ = ("id", "project_id", "status", "input_url", "output_formats", "ffmpeg_preset", "hls_time", "categorize", "moderate", "metadata", "progress", "output_url", "thumbnail_url", "rendition_urls", "duration_sec", "segments_count", "cost_cents", "error_code", "error_message", "categorization", "moderation", "created_at", "started_at", "playable_at", "completed_at", "failed_at", "warnings")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[ConversionJob.Status]
        PENDING: _ClassVar[ConversionJob.Status]
        PROCESSING: _ClassVar[ConversionJob.Status]
        COMPLETED: _ClassVar[ConversionJob.Status]
        FAILED: _ClassVar[ConversionJob.Status]
        CANCELLED: _ClassVar[ConversionJob.Status]
    STATUS_UNSPECIFIED: ConversionJob.Status
    PENDING: ConversionJob.Status
    PROCESSING: ConversionJob.Status
    COMPLETED: ConversionJob.Status
    FAILED: ConversionJob.Status
    CANCELLED: ConversionJob.Status
    class Progress(_message.Message):
        __slots__ = ("percent", "stage", "speed", "eta_sec")
        PERCENT_FIELD_NUMBER: _ClassVar[int]
        STAGE_FIELD_NUMBER: _ClassVar[int]
        SPEED_FIELD_NUMBER: _ClassVar[int]
        ETA_SEC_FIELD_NUMBER: _ClassVar[int]
        percent: float
        stage: str
        speed: float
        eta_sec: float
        def __init__(self, percent: _Optional[float] = ..., stage: _Optional[str] = ..., speed: _Optional[float] = ..., eta_sec: _Optional[float] = ...) -> None: ...
    class RenditionUrlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INPUT_URL_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FORMATS_FIELD_NUMBER: _ClassVar[int]
    FFMPEG_PRESET_FIELD_NUMBER: _ClassVar[int]
    HLS_TIME_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZE_FIELD_NUMBER: _ClassVar[int]
    MODERATE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_URL_FIELD_NUMBER: _ClassVar[int]
    THUMBNAIL_URL_FIELD_NUMBER: _ClassVar[int]
    RENDITION_URLS_FIELD_NUMBER: _ClassVar[int]
    DURATION_SEC_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_COUNT_FIELD_NUMBER: _ClassVar[int]
    COST_CENTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIZATION_FIELD_NUMBER: _ClassVar[int]
    MODERATION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    PLAYABLE_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    FAILED_AT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    id: str
    project_id: str
    status: ConversionJob.Status
    input_url: str
    output_formats: _containers.RepeatedScalarFieldContainer[str]
    ffmpeg_preset: str
    hls_time: float
    categorize: bool
    moderate: bool
    metadata: _struct_pb2.Value
    progress: ConversionJob.Progress
    output_url: str
    thumbnail_url: str
    rendition_urls: _containers.ScalarMap[str, str]
    duration_sec: int
    segments_count: int
    cost_cents: int
    error_code: str
    error_message: str
    categorization: CategorizationResult
    moderation: ModerationResult
    created_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    playable_at: _timestamp_pb2.Timestamp
    completed_at: _timestamp_pb2.Timestamp
    failed_at: _timestamp_pb2.Timestamp
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., project_id: _Optional[str] = ..., status: _Optional[_Union[ConversionJob.Status, str]] = ..., input_url: _Optional[str] = ..., output_formats: _Optional[_Iterable[str]] = ..., ffmpeg_preset: _Optional[str] = ..., hls_time: _Optional[float] = ..., categorize: _Optional[bool] = ..., moderate: _Optional[bool] = ..., metadata: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., progress: _Optional[_Union[ConversionJob.Progress, _Mapping]] = ..., output_url: _Optional[str] = ..., thumbnail_url: _Optional[str] = ..., rendition_urls: _Optional[_Mapping[str, str]] = ..., duration_sec: _Optional[int] = ..., segments_count: _Optional[int] = ..., cost_cents: _Optional[int] = ..., error_code: _Optional[str] = ..., error_message: _Optional[str] = ..., categorization: _Optional[_Union[CategorizationResult, _Mapping]] = ..., moderation: _Optional[_Union[ModerationResult, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., playable_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., completed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., failed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class ListConversionJobsRequest(_message.Message):
    __slots__ = ("status", "page", "page_size", "limit")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    status: ConversionJob.Status
    page: int
    page_size: int
    limit: int
    def __init__(self, status: _Optional[_Union[ConversionJob.Status, str]] = ..., page: _Optional[int] = ..., page_size: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListConversionJobsResponse(_message.Message):
    __slots__ = ("items", "total", "page", "page_size")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ConversionJob]
    total: int
    page: int
    page_size: int
    def __init__(self, items: _Optional[_Iterable[_Union[ConversionJob, _Mapping]]] = ..., total: _Optional[int] = ..., page: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class GetConversionJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class WatchConversionJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class CancelConversionJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class Category(_message.Message):
    __slots__ = ("name", "confidence", "primary")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_FIELD_NUMBER: _ClassVar[int]
    name: str
    confidence: float
    primary: bool
    def __init__(self, name: _Optional[str] = ..., confidence: _Optional[float] = ..., primary: _Optional[bool] = ...) -> None: ...

class CategorizationResult(_message.Message):
    __slots__ = ("primary_category", "confidence", "categories", "tags", "scores", "frames_analyzed", "processing_time_ms")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PRIMARY_CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_ANALYZED_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    primary_category: str
    confidence: float
    categories: _containers.RepeatedCompositeFieldContainer[Category]
    tags: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.ScalarMap[str, float]
    frames_analyzed: int
    processing_time_ms: int
    def __init__(self, primary_category: _Optional[str] = ..., confidence: _Optional[float] = ..., categories: _Optional[_Iterable[_Union[Category, _Mapping]]] = ..., tags: _Optional[_Iterable[str]] = ..., scores: _Optional[_Mapping[str, float]] = ..., frames_analyzed: _Optional[int] = ..., processing_time_ms: _Optional[int] = ...) -> None: ...

class Violation(_message.Message):
    __slots__ = ("category", "confidence", "severity")
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    category: str
    confidence: float
    severity: str
    def __init__(self, category: _Optional[str] = ..., confidence: _Optional[float] = ..., severity: _Optional[str] = ...) -> None: ...

class FlaggedFrame(_message.Message):
    __slots__ = ("frame_index", "violations")
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    frame_index: int
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    def __init__(self, frame_index: _Optional[int] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ...) -> None: ...

class ModerationResult(_message.Message):
    __slots__ = ("safe", "violations", "scores", "flagged_frames", "frames_analyzed", "processing_time_ms")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SAFE_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_ANALYZED_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    safe: bool
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    scores: _containers.ScalarMap[str, float]
    flagged_frames: _containers.RepeatedCompositeFieldContainer[FlaggedFrame]
    frames_analyzed: int
    processing_time_ms: int
    def __init__(self, safe: _Optional[bool] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ..., scores: _Optional[_Mapping[str, float]] = ..., flagged_frames: _Optional[_Iterable[_Union[FlaggedFrame, _Mapping]]] = ..., frames_analyzed: _Optional[int] = ..., processing_time_ms: _Optional[int] = ...) -> None: ...

class CreateCategorizationJobRequest(_message.Message):
    __slots__ = ("input_url", "input_type", "top_k", "max_frames", "metadata")
    INPUT_URL_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAMES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    input_url: str
    input_type: str
    top_k: int
    max_frames: int
    metadata: _struct_pb2.Value
    def __init__(self, input_url: _Optional[str] = ..., input_type: _Optional[str] = ..., top_k: _Optional[int] = ..., max_frames: _Optional[int] = ..., metadata: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class CategorizationJob(_message.Message):
    __slots__ = ("id", "project_id", "status", "input_url", "input_type", "metadata", "primary_category", "confidence", "categories", "tags", "scores", "frames_analyzed", "processing_time_ms", "error_message", "created_at", "completed_at", "error_code")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[CategorizationJob.Status]
        PENDING: _ClassVar[CategorizationJob.Status]
        PROCESSING: _ClassVar[CategorizationJob.Status]
        COMPLETED: _ClassVar[CategorizationJob.Status]
        FAILED: _ClassVar[CategorizationJob.Status]
    STATUS_UNSPECIFIED: CategorizationJob.Status
    PENDING: CategorizationJob.Status
    PROCESSING: CategorizationJob.Status
    COMPLETED: CategorizationJob.Status
    FAILED: CategorizationJob.Status
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INPUT_URL_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PRIMARY_CATEGORY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_ANALYZED_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    id: str
    project_id: str
    status: CategorizationJob.Status
    input_url: str
    input_type: str
    metadata: _struct_pb2.Value
    primary_category: str
    confidence: float
    categories: _containers.RepeatedCompositeFieldContainer[Category]
    tags: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.ScalarMap[str, float]
    frames_analyzed: int
    processing_time_ms: int
    error_message: str
    created_at: _timestamp_pb2.Timestamp
    completed_at: _timestamp_pb2.Timestamp
    error_code: str
    def __init__(self, id: _Optional[str] = ..., project_id: _Optional[str] = ..., status: _Optional[_Union[CategorizationJob.Status, str]] = ..., input_url: _Optional[str] = ..., input_type: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., primary_category: _Optional[str] = ..., confidence: _Optional[float] = ..., categories: _Optional[_Iterable[_Union[Category, _Mapping]]] = ..., tags: _Optional[_Iterable[str]] = ..., scores: _Optional[_Mapping[str, float]] = ..., frames_analyzed: _Optional[int] = ..., processing_time_ms: _Optional[int] = ..., error_message: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., completed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error_code: _Optional[str] = ...) -> None: ...

class ListCategorizationJobsRequest(_message.Message):
    __slots__ = ("status", "page", "page_size", "limit")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    status: CategorizationJob.Status
    page: int
    page_size: int
    limit: int
    def __init__(self, status: _Optional[_Union[CategorizationJob.Status, str]] = ..., page: _Optional[int] = ..., page_size: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListCategorizationJobsResponse(_message.Message):
    __slots__ = ("items", "total", "page", "page_size")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[CategorizationJob]
    total: int
    page: int
    page_size: int
    def __init__(self, items: _Optional[_Iterable[_Union[CategorizationJob, _Mapping]]] = ..., total: _Optional[int] = ..., page: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class GetCategorizationJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class CreateModerationJobRequest(_message.Message):
    __slots__ = ("input_url", "input_type", "max_frames", "threshold", "metadata")
    INPUT_URL_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAMES_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    input_url: str
    input_type: str
    max_frames: int
    threshold: float
    metadata: _struct_pb2.Value
    def __init__(self, input_url: _Optional[str] = ..., input_type: _Optional[str] = ..., max_frames: _Optional[int] = ..., threshold: _Optional[float] = ..., metadata: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class ModerationJob(_message.Message):
    __slots__ = ("id", "project_id", "status", "input_url", "input_type", "metadata", "safe", "violations", "scores", "flagged_frames", "frames_analyzed", "processing_time_ms", "error_message", "created_at", "completed_at", "error_code")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[ModerationJob.Status]
        PENDING: _ClassVar[ModerationJob.Status]
        PROCESSING: _ClassVar[ModerationJob.Status]
        COMPLETED: _ClassVar[ModerationJob.Status]
        FAILED: _ClassVar[ModerationJob.Status]
    STATUS_UNSPECIFIED: ModerationJob.Status
    PENDING: ModerationJob.Status
    PROCESSING: ModerationJob.Status
    COMPLETED: ModerationJob.Status
    FAILED: ModerationJob.Status
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    INPUT_URL_FIELD_NUMBER: _ClassVar[int]
    INPUT_TYPE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SAFE_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_ANALYZED_FIELD_NUMBER: _ClassVar[int]
    PROCESSING_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    id: str
    project_id: str
    status: ModerationJob.Status
    input_url: str
    input_type: str
    metadata: _struct_pb2.Value
    safe: bool
    violations: _containers.RepeatedCompositeFieldContainer[Violation]
    scores: _containers.ScalarMap[str, float]
    flagged_frames: _containers.RepeatedCompositeFieldContainer[FlaggedFrame]
    frames_analyzed: int
    processing_time_ms: int
    error_message: str
    created_at: _timestamp_pb2.Timestamp
    completed_at: _timestamp_pb2.Timestamp
    error_code: str
    def __init__(self, id: _Optional[str] = ..., project_id: _Optional[str] = ..., status: _Optional[_Union[ModerationJob.Status, str]] = ..., input_url: _Optional[str] = ..., input_type: _Optional[str] = ..., metadata: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., safe: _Optional[bool] = ..., violations: _Optional[_Iterable[_Union[Violation, _Mapping]]] = ..., scores: _Optional[_Mapping[str, float]] = ..., flagged_frames: _Optional[_Iterable[_Union[FlaggedFrame, _Mapping]]] = ..., frames_analyzed: _Optional[int] = ..., processing_time_ms: _Optional[int] = ..., error_message: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., completed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error_code: _Optional[str] = ...) -> None: ...

class ListModerationJobsRequest(_message.Message):
    __slots__ = ("status", "page", "page_size", "limit")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    status: ModerationJob.Status
    page: int
    page_size: int
    limit: int
    def __init__(self, status: _Optional[_Union[ModerationJob.Status, str]] = ..., page: _Optional[int] = ..., page_size: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListModerationJobsResponse(_message.Message):
    __slots__ = ("items", "total", "page", "page_size")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[ModerationJob]
    total: int
    page: int
    page_size: int
    def __init__(self, items: _Optional[_Iterable[_Union[ModerationJob, _Mapping]]] = ..., total: _Optional[int] = ..., page: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class GetModerationJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...
