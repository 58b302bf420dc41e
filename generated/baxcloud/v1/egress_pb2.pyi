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

class FileOptions(_message.Message):
    __slots__ = ("file_type",)
    FILE_TYPE_FIELD_NUMBER: _ClassVar[int]
    file_type: str
    def __init__(self, file_type: _Optional[str] = ...) -> None: ...

class StreamOptions(_message.Message):
    __slots__ = ("urls",)
    URLS_FIELD_NUMBER: _ClassVar[int]
    urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, urls: _Optional[_Iterable[str]] = ...) -> None: ...

class Egress(_message.Message):
    __slots__ = ("id", "egress_id", "recording_id", "room_name", "type", "mode", "layout", "quality", "status", "livekit_status", "destinations", "file", "file_url", "file_size", "duration_sec", "error_code", "error_message", "created_at", "started_at", "ended_at", "paused", "progress", "tracks")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATUS_UNSPECIFIED: _ClassVar[Egress.Status]
        STARTED: _ClassVar[Egress.Status]
        COMPLETED: _ClassVar[Egress.Status]
        FAILED: _ClassVar[Egress.Status]
    STATUS_UNSPECIFIED: Egress.Status
    STARTED: Egress.Status
    COMPLETED: Egress.Status
    FAILED: Egress.Status
    ID_FIELD_NUMBER: _ClassVar[int]
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    LIVEKIT_STATUS_FIELD_NUMBER: _ClassVar[int]
    DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    FILE_URL_FIELD_NUMBER: _ClassVar[int]
    FILE_SIZE_FIELD_NUMBER: _ClassVar[int]
    DURATION_SEC_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    id: str
    egress_id: str
    recording_id: str
    room_name: str
    type: str
    mode: str
    layout: str
    quality: str
    status: Egress.Status
    livekit_status: str
    destinations: _containers.RepeatedScalarFieldContainer[str]
    file: FileOptions
    file_url: str
    file_size: int
    duration_sec: int
    error_code: str
    error_message: str
    created_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    paused: bool
    progress: EgressProgress
    tracks: bool
    def __init__(self, id: _Optional[str] = ..., egress_id: _Optional[str] = ..., recording_id: _Optional[str] = ..., room_name: _Optional[str] = ..., type: _Optional[str] = ..., mode: _Optional[str] = ..., layout: _Optional[str] = ..., quality: _Optional[str] = ..., status: _Optional[_Union[Egress.Status, str]] = ..., livekit_status: _Optional[str] = ..., destinations: _Optional[_Iterable[str]] = ..., file: _Optional[_Union[FileOptions, _Mapping]] = ..., file_url: _Optional[str] = ..., file_size: _Optional[int] = ..., duration_sec: _Optional[int] = ..., error_code: _Optional[str] = ..., error_message: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., paused: _Optional[bool] = ..., progress: _Optional[_Union[EgressProgress, _Mapping]] = ..., tracks: _Optional[bool] = ...) -> None: ...

class EgressProgress(_message.Message):
    __slots__ = ("duration_ms", "fps", "frames_composed", "frames_repeated", "frames_dropped", "bytes")
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    FPS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_COMPOSED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_REPEATED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    duration_ms: int
    fps: float
    frames_composed: int
    frames_repeated: int
    frames_dropped: int
    bytes: int
    def __init__(self, duration_ms: _Optional[int] = ..., fps: _Optional[float] = ..., frames_composed: _Optional[int] = ..., frames_repeated: _Optional[int] = ..., frames_dropped: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class StartEgressRequest(_message.Message):
    __slots__ = ("room_name", "mode", "layout", "quality", "file", "stream", "tracks")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    mode: str
    layout: str
    quality: str
    file: FileOptions
    stream: StreamOptions
    tracks: bool
    def __init__(self, room_name: _Optional[str] = ..., mode: _Optional[str] = ..., layout: _Optional[str] = ..., quality: _Optional[str] = ..., file: _Optional[_Union[FileOptions, _Mapping]] = ..., stream: _Optional[_Union[StreamOptions, _Mapping]] = ..., tracks: _Optional[bool] = ...) -> None: ...

class StopEgressRequest(_message.Message):
    __slots__ = ("egress_id",)
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    def __init__(self, egress_id: _Optional[str] = ...) -> None: ...

class PauseEgressRequest(_message.Message):
    __slots__ = ("egress_id", "mode")
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    mode: str
    def __init__(self, egress_id: _Optional[str] = ..., mode: _Optional[str] = ...) -> None: ...

class ResumeEgressRequest(_message.Message):
    __slots__ = ("egress_id",)
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    def __init__(self, egress_id: _Optional[str] = ...) -> None: ...

class ListEgressRequest(_message.Message):
    __slots__ = ("room_name", "status", "page", "limit", "page_size")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    status: Egress.Status
    page: int
    limit: int
    page_size: int
    def __init__(self, room_name: _Optional[str] = ..., status: _Optional[_Union[Egress.Status, str]] = ..., page: _Optional[int] = ..., limit: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class ListEgressResponse(_message.Message):
    __slots__ = ("items", "total", "page", "limit")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Egress]
    total: int
    page: int
    limit: int
    def __init__(self, items: _Optional[_Iterable[_Union[Egress, _Mapping]]] = ..., total: _Optional[int] = ..., page: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class GetEgressRequest(_message.Message):
    __slots__ = ("egress_id",)
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    def __init__(self, egress_id: _Optional[str] = ...) -> None: ...

class DeleteEgressRequest(_message.Message):
    __slots__ = ("egress_id",)
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    def __init__(self, egress_id: _Optional[str] = ...) -> None: ...

class AutoEgressConfig(_message.Message):
    __slots__ = ("enabled", "mode", "layout", "quality", "file", "stream", "min_participants", "delay_seconds", "room_name_pattern", "updated_at")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    MIN_PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_PATTERN_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    mode: str
    layout: str
    quality: str
    file: FileOptions
    stream: StreamOptions
    min_participants: int
    delay_seconds: int
    room_name_pattern: str
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, enabled: _Optional[bool] = ..., mode: _Optional[str] = ..., layout: _Optional[str] = ..., quality: _Optional[str] = ..., file: _Optional[_Union[FileOptions, _Mapping]] = ..., stream: _Optional[_Union[StreamOptions, _Mapping]] = ..., min_participants: _Optional[int] = ..., delay_seconds: _Optional[int] = ..., room_name_pattern: _Optional[str] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetAutoEgressRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UpdateAutoEgressRequest(_message.Message):
    __slots__ = ("enabled", "mode", "layout", "quality", "file", "stream", "min_participants", "delay_seconds", "room_name_pattern")
    ENABLED_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    MIN_PARTICIPANTS_FIELD_NUMBER: _ClassVar[int]
    DELAY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_PATTERN_FIELD_NUMBER: _ClassVar[int]
    enabled: bool
    mode: str
    layout: str
    quality: str
    file: FileOptions
    stream: StreamOptions
    min_participants: int
    delay_seconds: int
    room_name_pattern: str
    def __init__(self, enabled: _Optional[bool] = ..., mode: _Optional[str] = ..., layout: _Optional[str] = ..., quality: _Optional[str] = ..., file: _Optional[_Union[FileOptions, _Mapping]] = ..., stream: _Optional[_Union[StreamOptions, _Mapping]] = ..., min_participants: _Optional[int] = ..., delay_seconds: _Optional[int] = ..., room_name_pattern: _Optional[str] = ...) -> None: ...

class Recording(_message.Message):
    __slots__ = ("id", "egress_id", "room_name", "status", "file_type", "layout", "quality", "file_url", "file_size", "duration_sec", "error_code", "error_message", "created_at", "started_at", "ended_at", "tracks")
    ID_FIELD_NUMBER: _ClassVar[int]
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FILE_TYPE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    FILE_URL_FIELD_NUMBER: _ClassVar[int]
    FILE_SIZE_FIELD_NUMBER: _ClassVar[int]
    DURATION_SEC_FIELD_NUMBER: _ClassVar[int]
    ERROR_CODE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    id: str
    egress_id: str
    room_name: str
    status: Egress.Status
    file_type: str
    layout: str
    quality: str
    file_url: str
    file_size: int
    duration_sec: int
    error_code: str
    error_message: str
    created_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    tracks: bool
    def __init__(self, id: _Optional[str] = ..., egress_id: _Optional[str] = ..., room_name: _Optional[str] = ..., status: _Optional[_Union[Egress.Status, str]] = ..., file_type: _Optional[str] = ..., layout: _Optional[str] = ..., quality: _Optional[str] = ..., file_url: _Optional[str] = ..., file_size: _Optional[int] = ..., duration_sec: _Optional[int] = ..., error_code: _Optional[str] = ..., error_message: _Optional[str] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tracks: _Optional[bool] = ...) -> None: ...

class StartRecordingRequest(_message.Message):
    __slots__ = ("room_name", "file_type", "layout", "quality", "tracks")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_TYPE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    file_type: str
    layout: str
    quality: str
    tracks: bool
    def __init__(self, room_name: _Optional[str] = ..., file_type: _Optional[str] = ..., layout: _Optional[str] = ..., quality: _Optional[str] = ..., tracks: _Optional[bool] = ...) -> None: ...

class StopRecordingRequest(_message.Message):
    __slots__ = ("egress_id",)
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    def __init__(self, egress_id: _Optional[str] = ...) -> None: ...

class ListRecordingsRequest(_message.Message):
    __slots__ = ("room_name", "status", "page", "limit", "page_size")
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    status: Egress.Status
    page: int
    limit: int
    page_size: int
    def __init__(self, room_name: _Optional[str] = ..., status: _Optional[_Union[Egress.Status, str]] = ..., page: _Optional[int] = ..., limit: _Optional[int] = ..., page_size: _Optional[int] = ...) -> None: ...

class ListRecordingsResponse(_message.Message):
    __slots__ = ("items", "total", "page", "limit")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PAGE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Recording]
    total: int
    page: int
    limit: int
    def __init__(self, items: _Optional[_Iterable[_Union[Recording, _Mapping]]] = ..., total: _Optional[int] = ..., page: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListActiveRecordingsRequest(_message.Message):
    __slots__ = ("room_name",)
    ROOM_NAME_FIELD_NUMBER: _ClassVar[int]
    room_name: str
    def __init__(self, room_name: _Optional[str] = ...) -> None: ...

class ListActiveRecordingsResponse(_message.Message):
    __slots__ = ("items", "total")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Recording]
    total: int
    def __init__(self, items: _Optional[_Iterable[_Union[Recording, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class GetRecordingRequest(_message.Message):
    __slots__ = ("recording_id",)
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    recording_id: str
    def __init__(self, recording_id: _Optional[str] = ...) -> None: ...

class GetRecordingDownloadUrlRequest(_message.Message):
    __slots__ = ("recording_id", "expires_in")
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    recording_id: str
    expires_in: int
    def __init__(self, recording_id: _Optional[str] = ..., expires_in: _Optional[int] = ...) -> None: ...

class RecordingDownloadUrl(_message.Message):
    __slots__ = ("download_url", "expires_in", "expires_at")
    DOWNLOAD_URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_IN_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    download_url: str
    expires_in: int
    expires_at: _timestamp_pb2.Timestamp
    def __init__(self, download_url: _Optional[str] = ..., expires_in: _Optional[int] = ..., expires_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetRecordingManifestRequest(_message.Message):
    __slots__ = ("recording_id",)
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    recording_id: str
    def __init__(self, recording_id: _Optional[str] = ...) -> None: ...

class RecordingManifest(_message.Message):
    __slots__ = ("egress_id", "recording_id", "objects", "duration_ms", "frames_composed", "frames_repeated", "frames_dropped", "audio_offset_ms", "gaps", "tracks", "versions")
    class Object(_message.Message):
        __slots__ = ("key", "size", "sha256", "content_type")
        KEY_FIELD_NUMBER: _ClassVar[int]
        SIZE_FIELD_NUMBER: _ClassVar[int]
        SHA256_FIELD_NUMBER: _ClassVar[int]
        CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
        key: str
        size: int
        sha256: str
        content_type: str
        def __init__(self, key: _Optional[str] = ..., size: _Optional[int] = ..., sha256: _Optional[str] = ..., content_type: _Optional[str] = ...) -> None: ...
    class Gap(_message.Message):
        __slots__ = ("start_ms", "duration_ms", "reason")
        START_MS_FIELD_NUMBER: _ClassVar[int]
        DURATION_MS_FIELD_NUMBER: _ClassVar[int]
        REASON_FIELD_NUMBER: _ClassVar[int]
        start_ms: int
        duration_ms: int
        reason: str
        def __init__(self, start_ms: _Optional[int] = ..., duration_ms: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...
    class Track(_message.Message):
        __slots__ = ("sid", "identity", "kind", "codec", "start_ms", "end_ms")
        SID_FIELD_NUMBER: _ClassVar[int]
        IDENTITY_FIELD_NUMBER: _ClassVar[int]
        KIND_FIELD_NUMBER: _ClassVar[int]
        CODEC_FIELD_NUMBER: _ClassVar[int]
        START_MS_FIELD_NUMBER: _ClassVar[int]
        END_MS_FIELD_NUMBER: _ClassVar[int]
        sid: str
        identity: str
        kind: str
        codec: str
        start_ms: int
        end_ms: int
        def __init__(self, sid: _Optional[str] = ..., identity: _Optional[str] = ..., kind: _Optional[str] = ..., codec: _Optional[str] = ..., start_ms: _Optional[int] = ..., end_ms: _Optional[int] = ...) -> None: ...
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_COMPOSED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_REPEATED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    AUDIO_OFFSET_MS_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    recording_id: str
    objects: _containers.RepeatedCompositeFieldContainer[RecordingManifest.Object]
    duration_ms: int
    frames_composed: int
    frames_repeated: int
    frames_dropped: int
    audio_offset_ms: float
    gaps: _containers.RepeatedCompositeFieldContainer[RecordingManifest.Gap]
    tracks: _containers.RepeatedCompositeFieldContainer[RecordingManifest.Track]
    versions: _containers.ScalarMap[str, str]
    def __init__(self, egress_id: _Optional[str] = ..., recording_id: _Optional[str] = ..., objects: _Optional[_Iterable[_Union[RecordingManifest.Object, _Mapping]]] = ..., duration_ms: _Optional[int] = ..., frames_composed: _Optional[int] = ..., frames_repeated: _Optional[int] = ..., frames_dropped: _Optional[int] = ..., audio_offset_ms: _Optional[float] = ..., gaps: _Optional[_Iterable[_Union[RecordingManifest.Gap, _Mapping]]] = ..., tracks: _Optional[_Iterable[_Union[RecordingManifest.Track, _Mapping]]] = ..., versions: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ComposeRecordingRequest(_message.Message):
    __slots__ = ("recording_id", "layout", "quality", "file_type")
    RECORDING_ID_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    FILE_TYPE_FIELD_NUMBER: _ClassVar[int]
    recording_id: str
    layout: str
    quality: str
    file_type: str
    def __init__(self, recording_id: _Optional[str] = ..., layout: _Optional[str] = ..., quality: _Optional[str] = ..., file_type: _Optional[str] = ...) -> None: ...

class StartRoomRecordingRequest(_message.Message):
    __slots__ = ("room_id", "layout")
    ROOM_ID_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    room_id: str
    layout: str
    def __init__(self, room_id: _Optional[str] = ..., layout: _Optional[str] = ...) -> None: ...

class StartRoomRecordingResponse(_message.Message):
    __slots__ = ("egress_id", "status", "started_at")
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    status: str
    started_at: _timestamp_pb2.Timestamp
    def __init__(self, egress_id: _Optional[str] = ..., status: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class StopRoomRecordingRequest(_message.Message):
    __slots__ = ("room_id",)
    ROOM_ID_FIELD_NUMBER: _ClassVar[int]
    room_id: str
    def __init__(self, room_id: _Optional[str] = ...) -> None: ...

class StopRoomRecordingResponse(_message.Message):
    __slots__ = ("egress_id", "status")
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    egress_id: str
    status: str
    def __init__(self, egress_id: _Optional[str] = ..., status: _Optional[str] = ...) -> None: ...

class GetRoomRecordingRequest(_message.Message):
    __slots__ = ("room_id",)
    ROOM_ID_FIELD_NUMBER: _ClassVar[int]
    room_id: str
    def __init__(self, room_id: _Optional[str] = ...) -> None: ...

class RoomRecording(_message.Message):
    __slots__ = ("active", "egress_id", "started_at")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    EGRESS_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    active: bool
    egress_id: str
    started_at: _timestamp_pb2.Timestamp
    def __init__(self, active: _Optional[bool] = ..., egress_id: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
