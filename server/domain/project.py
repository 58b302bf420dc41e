"""Projects, their storage defaults, API keys and usage."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from server.ids import ProjectId


@dataclass(frozen=True, slots=True)
class S3Config:
    """Where output goes (VC-14 … VC-20). Secrets never appear in `repr`.

    All fields may be empty: a request may carry only `prefix` or `cdn_url` to lay over the project's defaults.
    """

    bucket: str = ""
    region: str = ""
    endpoint: str = ""
    prefix: str = ""
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    cdn_url: str = ""

    @property
    def stands_alone(self) -> bool:
        """Names a bucket, endpoint or keys: then nothing is filled in from the project (design section 13)."""
        return bool(self.bucket or self.endpoint or self.access_key or self.secret_key)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a project's plan includes; data, not code (GN-25). Rates are cents.

    `cents_per_rendition_minute` is B-52's 2; AI jobs beyond the included number cost the overage rate each (GN-16).
    """

    cents_per_rendition_minute: float = 2.0
    included_categorization_jobs: int = 0
    included_moderation_jobs: int = 0
    categorization_overage_cents: float = 1.0
    moderation_overage_cents: float = 1.0


@dataclass(frozen=True, slots=True)
class Project:
    id: ProjectId
    name: str
    created_at: datetime
    s3: S3Config | None = None
    plan: Plan = Plan()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret: only `digest` (SHA-256 hex of the whole key) is stored."""

    id: str
    project_id: ProjectId
    name: str
    digest: str = field(repr=False)
    baxstream: bool
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class LiveKitKey:
    """A LiveKit-style key pair of a project; `api_secret` is encrypted at rest and shown once."""

    api_key: str
    project_id: ProjectId
    api_secret: str = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters since the project began (GN-08, GN-15, GN-16). Money in cents, media in seconds."""

    conversion_jobs: int = 0
    conversion_seconds: int = 0
    conversion_cents: int = 0
    categorization_jobs: int = 0
    moderation_jobs: int = 0
