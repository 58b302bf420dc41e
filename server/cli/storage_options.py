"""Where output goes, from options and environment; secrets come from the environment only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from generated.baxcloud.v1 import common_pb2

Bucket = Annotated[
    str | None,
    typer.Option(
        help="S3 bucket for the output; its keys are read from BAX_S3_ACCESS_KEY and BAX_S3_SECRET_KEY."
    ),
]
Region = Annotated[str | None, typer.Option(help="Its region.")]
Endpoint = Annotated[str | None, typer.Option(help="Address of an S3-compatible service.")]
Prefix = Annotated[str | None, typer.Option(help="Key prefix of the output, for example videos/my-video/.")]
CdnUrl = Annotated[str | None, typer.Option(help="Base address that output URLs get.")]


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """What was given on the command line; None where nothing was."""

    bucket: str | None
    region: str | None
    endpoint: str | None
    prefix: str | None
    cdn_url: str | None

    @property
    def given(self) -> bool:
        return any(value is not None for value in self._fields().values())

    def message(self, *, with_environment: bool) -> common_pb2.S3Config | None:
        """An `s3Config`, None if nothing was given.

        `with_environment` fills in BAX_S3_*, for a server elsewhere; the one of this machine reads them itself. The
        credentials go along whenever a bucket or an endpoint is named.
        """
        from generated.baxcloud.v1 import common_pb2

        fields = {name: value for name, value in self._fields().items() if value is not None}
        if with_environment:
            fields = {name: value for name in self._fields() if (value := _variable(name))} | fields
        if not fields:
            return None
        config = common_pb2.S3Config(**fields)
        if config.bucket or config.endpoint:
            config.access_key = _variable("access_key")
            config.secret_key = _variable("secret_key")
        return config

    def _fields(self) -> dict[str, str | None]:
        return {
            "bucket": self.bucket,
            "region": self.region,
            "endpoint": self.endpoint,
            "prefix": self.prefix,
            "cdn_url": self.cdn_url,
        }


def _variable(name: str) -> str:
    return os.environ.get(f"BAX_S3_{name.upper()}", "")
