from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class S3Config(_message.Message):
    __slots__ = ("bucket", "region", "endpoint", "prefix", "access_key", "secret_key", "cdn_url")
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    ACCESS_KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_KEY_FIELD_NUMBER: _ClassVar[int]
    CDN_URL_FIELD_NUMBER: _ClassVar[int]
    bucket: str
    region: str
    endpoint: str
    prefix: str
    access_key: str
    secret_key: str
    cdn_url: str
    def __init__(self, bucket: _Optional[str] = ..., region: _Optional[str] = ..., endpoint: _Optional[str] = ..., prefix: _Optional[str] = ..., access_key: _Optional[str] = ..., secret_key: _Optional[str] = ..., cdn_url: _Optional[str] = ...) -> None: ...

class S3Settings(_message.Message):
    __slots__ = ("bucket", "region", "endpoint", "prefix", "cdn_url", "has_credentials")
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    CDN_URL_FIELD_NUMBER: _ClassVar[int]
    HAS_CREDENTIALS_FIELD_NUMBER: _ClassVar[int]
    bucket: str
    region: str
    endpoint: str
    prefix: str
    cdn_url: str
    has_credentials: bool
    def __init__(self, bucket: _Optional[str] = ..., region: _Optional[str] = ..., endpoint: _Optional[str] = ..., prefix: _Optional[str] = ..., cdn_url: _Optional[str] = ..., has_credentials: _Optional[bool] = ...) -> None: ...
