"""What a conversion job is asked to do, as it is stored; its defaults and its price."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.domain.job import Job
from server.domain.project import S3Config
from server.ids import ProjectId
from server.ports.storage import StorageTarget

DEFAULT_FFMPEG_PRESET = "fast"
DEFAULT_HLS_TIME = 2.0
RECORDING_SCHEME = "recording://"


@dataclass(frozen=True, slots=True)
class ConversionSpec:
    """The validated request without secrets. `hls_time` in seconds.

    `input_url` is `http(s)://…`, `upload://<file name>` or `recording://<id>`; an upload's bytes wait in the spool
    under the job's id.
    """

    input_url: str
    output_formats: tuple[str, ...]
    ffmpeg_preset: str
    hls_time: float
    categorize: bool
    moderate: bool
    target: StorageTarget

    @property
    def is_upload(self) -> bool:
        return self.input_url.startswith("upload://")

    @property
    def recording_id(self) -> str | None:
        """The recording that is converted, None for other sources."""
        if not self.input_url.startswith(RECORDING_SCHEME):
            return None
        return self.input_url.removeprefix(RECORDING_SCHEME)

    def to_json(self) -> dict[str, Any]:
        """REST spelling, since webhook payloads show parts of it."""
        return {
            "inputUrl": self.input_url,
            "outputFormats": list(self.output_formats),
            "ffmpegPreset": self.ffmpeg_preset,
            "hlsTime": self.hls_time,
            "categorize": self.categorize,
            "moderate": self.moderate,
            "storage": _target_to_json(self.target),
        }

    def secrets(self) -> dict[str, str] | None:
        """What of the request must be encrypted at rest."""
        s3 = self.target.s3
        return {"accessKey": s3.access_key, "secretKey": s3.secret_key} if s3 and s3.access_key else None

    @classmethod
    def from_json(
        cls, spec: Mapping[str, Any], secrets: Mapping[str, str], *, project_id: ProjectId, job_id: str
    ) -> ConversionSpec:
        return cls(
            input_url=spec["inputUrl"],
            output_formats=tuple(spec["outputFormats"]),
            ffmpeg_preset=spec["ffmpegPreset"],
            hls_time=spec["hlsTime"],
            categorize=spec["categorize"],
            moderate=spec["moderate"],
            target=_target_from_json(spec["storage"], secrets, project_id=project_id, job_id=job_id),
        )


def spec_of(job: Job, secrets: Mapping[str, str]) -> ConversionSpec:
    return ConversionSpec.from_json(job.spec, secrets, project_id=job.project_id, job_id=job.id)


def _target_to_json(target: StorageTarget) -> dict[str, Any]:
    stored: dict[str, Any] = {"prefix": target.prefix, "trusted": target.trusted}
    if target.s3:
        stored["s3"] = {
            "bucket": target.s3.bucket,
            "region": target.s3.region,
            "endpoint": target.s3.endpoint,
            "cdnUrl": target.s3.cdn_url,
        }
    return stored


def _target_from_json(
    stored: Mapping[str, Any], secrets: Mapping[str, str], *, project_id: ProjectId, job_id: str
) -> StorageTarget:
    s3 = stored.get("s3")
    return StorageTarget(
        project_id=project_id,
        scope=job_id,
        s3=S3Config(
            bucket=s3["bucket"],
            region=s3["region"],
            endpoint=s3["endpoint"],
            prefix=stored["prefix"],
            cdn_url=s3["cdnUrl"],
            access_key=secrets.get("accessKey", ""),
            secret_key=secrets.get("secretKey", ""),
        )
        if s3
        else None,
        prefix=stored["prefix"],
        trusted=stored["trusted"],
    )


def whole_seconds(duration_sec: float) -> int:
    """Rounded half up, at least 1 (B-54)."""
    return max(1, math.floor(duration_sec + 0.5))


def price_cents(duration_sec: int, renditions: int, cents_per_rendition_minute: float) -> int:
    """B-52: `ceil(minutes × renditions × rate)`; 125 s × 3 at 2 cents is 13."""
    # Rounding first keeps binary fractions (12.000000001) from costing a cent.
    return math.ceil(round(duration_sec / 60 * renditions * cents_per_rendition_minute, 6))
