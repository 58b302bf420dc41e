"""Typed, frozen settings: the only module that reads the environment."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, HttpUrl, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "BAX_"

# Variables that configure clients and tools, not the server; they may stand in the same environment.
CLIENT_VARIABLES = frozenset({"BAX_URL", "BAX_API_KEY", "BAX_PROJECT_ID", "BAX_CONFIG"})

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class SettingsError(Exception):
    """The configuration cannot be used; the message names each variable and what is wrong with it."""


class Settings(BaseSettings):
    """Every setting of the server. `BAX_<NAME>` in the environment wins over `<name>` in the file BAX_CONFIG names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    # --- where it listens and how it is reached
    http_host: str = Field(
        "127.0.0.1", description="Address that HTTP (REST, Twirp, player, objects) and gRPC bind to."
    )
    http_port: Port = Field(8080, description="Port of HTTP; 0 picks a free one.")
    grpc_port: Port = Field(50051, description="Port of gRPC; 0 picks a free one.")
    worker_http_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port on which a process of role `worker` serves `/healthz` and `/metrics`, on `BAX_HTTP_HOST`; 0 "
        "picks a free one; default: it listens on nothing.",
    )
    public_url: HttpUrl | None = Field(
        None, description="Address under which clients reach HTTP; default `http://<host>:<port>`."
    )
    grpc_reflection: bool = Field(default=True, description="Serve gRPC reflection.")

    # --- state
    data_dir: Path = Field(
        Path(".bax"), description="Folder of the embedded database, objects and work files."
    )
    database_url: str | None = Field(
        None, description="`postgresql://…` or `sqlite:///…`; default SQLite in the data directory."
    )
    secret_keys: SecretStr | None = Field(
        None,
        description="Keys that encrypt secrets at rest, `v2:<base64 of 32 bytes>,v1:…`; the first encrypts, all "
        "decrypt. Default: one key made once in the data directory.",
    )

    # --- credentials made at start
    bootstrap_api_key: SecretStr | None = Field(
        None,
        description="API key of the bootstrap project, created at start if absent; default: made once and printed.",
    )
    bootstrap_project_id: str = Field(
        "cl_default", description="Id of the bootstrap project, created at start if absent."
    )
    bootstrap_livekit_api_key: str | None = Field(
        None, description="LiveKit-style key of the bootstrap project, created at start if absent."
    )
    bootstrap_livekit_api_secret: SecretStr | None = Field(None, description="The secret that belongs to it.")
    admin_token: SecretStr | None = Field(
        None,
        description="Bearer token of the operator, for projects and keys; default: made once and printed.",
    )

    # --- where output goes when neither request nor project says
    s3_bucket: str | None = Field(
        None, description="Bucket that takes all output without a storage of its own."
    )
    s3_region: str = Field("auto", description="Its region.")
    s3_endpoint: str | None = Field(None, description="Address of an S3-compatible service; default AWS.")
    s3_prefix: str = Field("", description="Key prefix in that bucket.")
    s3_access_key: SecretStr | None = Field(None, description="Access key id.")
    s3_secret_key: SecretStr | None = Field(None, description="Secret access key.")
    s3_cdn_url: str | None = Field(None, description="Base address given out instead of the raw S3 address.")
    backup_s3_bucket: str | None = Field(
        None, description="Bucket that takes recordings whose own storage refuses them again and again."
    )
    backup_s3_region: str = Field("auto", description="Its region.")
    backup_s3_endpoint: str | None = Field(
        None, description="Address of an S3-compatible service; default AWS."
    )
    backup_s3_prefix: str = Field("", description="Key prefix in that bucket.")
    backup_s3_access_key: SecretStr | None = Field(None, description="Access key id.")
    backup_s3_secret_key: SecretStr | None = Field(None, description="Secret access key.")
    storage_fallback: Literal["local", "none"] = Field(
        "local",
        description="`local`: the data directory takes output that has no other place; `none`: that is a 400.",
    )

    # --- conversion
    ffmpeg: Path | None = Field(
        None, description="FFmpeg binary; default: the one that was installed with the server."
    )
    conversion_concurrency: int | None = Field(
        None, ge=1, description="Conversions at a time in one worker; default half the cores, at least 1."
    )
    max_upload_bytes: int = Field(2 * 1024**3, gt=0, description="Largest upload, bytes (2 GiB).")
    max_input_bytes: int = Field(
        16 * 1024**3, gt=0, description="Largest file fetched from an input URL, bytes."
    )
    max_input_duration_sec: Seconds = Field(12 * 3600, description="Longest input, seconds.")
    download_timeout_sec: Seconds = Field(3600, description="Longest time one download may take, seconds.")
    min_free_bytes: int = Field(
        512 * 1024**2,
        ge=0,
        description="Uploads are refused and recordings end below this much free disk, bytes; recordings are warned of "
        "below twice as much.",
    )

    # --- egress
    egress_cores: float | None = Field(
        None,
        gt=0,
        description="Processor cores that a worker gives to recordings and streams; default nearly all. A 720p30 "
        "composition counts as 0.6.",
    )
    egress_max_duration_sec: float = Field(
        0, ge=0, description="Longest recording or stream, seconds; 0 means no limit."
    )

    # --- webhooks
    webhook_schedule_sec: Annotated[tuple[Seconds, ...], NoDecode] = Field(
        (5, 30, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400),
        description="Delays before each retry of a webhook, seconds, comma-separated.",
    )
    webhook_timeout_sec: Seconds = Field(10, description="How long an endpoint may take to answer, seconds.")

    # --- jobs
    drain_grace_sec: float = Field(
        30,
        ge=0,
        description="How long running jobs may go on after SIGTERM before they are handed over, seconds.",
    )
    lease_sec: Seconds = Field(
        6, description="A worker not heard from for this long loses its jobs, seconds."
    )

    # --- safety
    allow_private_urls: bool = Field(
        default=False,
        description="Let input, webhook and stream URLs reach private addresses and any port. Development only.",
    )
    rate_limit_per_minute: int = Field(0, ge=0, description="Calls a minute and API key; 0 means no limit.")

    # --- LiveKit
    livekit_url: str | None = Field(
        None, description="A LiveKit to use, `ws(s)://` or `http(s)://`; default the embedded one."
    )
    livekit_api_key: str | None = Field(None, description="Its API key.")
    livekit_api_secret: SecretStr | None = Field(None, description="Its API secret.")
    livekit_server: Path | None = Field(None, description="livekit-server binary for the embedded LiveKit.")
    livekit_embedded: bool = Field(
        default=True, description="Start an embedded LiveKit when no LiveKit is configured."
    )
    livekit_public_url: str | None = Field(None, description="Websocket address given to participants.")
    livekit_port: Port = Field(7880, description="Signal port of the embedded LiveKit.")
    livekit_tcp_port: Port = Field(
        7881,
        description="Media port (TCP) of the embedded LiveKit, which opens it on every address: on loopback it is "
        "off unless set.",
    )
    livekit_udp_ports: str = Field("7882", description="Media port or range (UDP) of the embedded LiveKit.")
    rtmp_port: Port = Field(1935, description="Port of the RTMP receiver.")

    # --- the rest
    models_dir: Path | None = Field(
        None, description="Folder of vision models; default `models` in the data directory."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )

    @field_validator("webhook_schedule_sec", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, os.environ.get("BAX_CONFIG")),
        )

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'baxcloud.db'}"


def load_settings(**overrides: Any) -> Settings:
    """Environment over TOML file over defaults; `overrides` (command-line options, None where not given) win.

    Raise SettingsError for unknown names, with the nearest known one, and for values that do not fit.
    """
    known = Settings.model_fields.keys()
    variables = {name for name in os.environ if name.startswith(PREFIX)} - CLIENT_VARIABLES
    _refuse_unknown(variables, {PREFIX + name.upper() for name in known})
    _refuse_unknown(_names_in_file(), known)
    try:
        settings = Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None
    _check_together(settings)
    return settings


def _names_in_file() -> set[str]:
    name = os.environ.get("BAX_CONFIG")
    if not name:
        return set()
    try:
        return set(tomllib.loads(Path(name).read_text()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"BAX_CONFIG: cannot read {name}: {error}") from error


def _refuse_unknown(names: Iterable[str], known: Iterable[str]) -> None:
    problems = []
    for name in sorted(set(names) - set(known)):
        near = difflib.get_close_matches(name, list(known), n=1)
        problems.append(f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else ""))
    if problems:
        raise SettingsError("\n".join(problems))


def _explain(error: ValidationError) -> str:
    # `input` is left out: it may be a secret.
    return "\n".join(
        f"{PREFIX}{str(detail['loc'][0]).upper()}: {detail['msg']}"
        for detail in error.errors(include_input=False)
    )


def _check_together(settings: Settings) -> None:
    pairs = (
        ("livekit_url", "livekit_api_key"),
        ("livekit_api_key", "livekit_api_secret"),
        ("bootstrap_livekit_api_key", "bootstrap_livekit_api_secret"),
        ("s3_access_key", "s3_secret_key"),
        ("backup_s3_access_key", "backup_s3_secret_key"),
    )
    for name, partner in pairs:
        if getattr(settings, name) is not None and getattr(settings, partner) is None:
            raise SettingsError(f"{PREFIX}{name.upper()} needs {PREFIX}{partner.upper()}")
