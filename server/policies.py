"""What the operator's settings say to the parts of the backend, in their own terms."""

from __future__ import annotations

import os

from pydantic import SecretStr

from server.conversion.handler import ConversionHandler
from server.domain.egress import EGRESS_KIND
from server.domain.egress_load import TYPICAL_CORES
from server.domain.project import S3Config
from server.egress.delivery import delivery_kind
from server.egress.storage_choice import StoragePolicy
from server.ids import ProjectId
from server.jobs.engine import EngineOptions
from server.services.conversions import ConversionPolicy
from server.settings import Settings

# The rest is for everything else that a worker does meanwhile.
_CORES_FOR_EGRESS = 0.95
_DELIVERIES_AT_ONCE = 4


def engine_options(settings: Settings) -> EngineOptions:
    """How much of what a worker carries."""
    limits: dict[str, float] = {
        EGRESS_KIND: settings.egress_cores or _CORES_FOR_EGRESS * (os.cpu_count() or 1)
    }
    if settings.conversion_concurrency:
        limits[ConversionHandler.kind] = settings.conversion_concurrency
    return EngineOptions(
        concurrency=limits | {delivery_kind(settings.data_dir / "egress"): _DELIVERIES_AT_ONCE},
        weight_of=lambda job: job.spec.get("cores", 1.0) if job.kind == EGRESS_KIND else 1.0,
        typical_weight={EGRESS_KIND: TYPICAL_CORES},
        offered=(EGRESS_KIND,),
        endless=(EGRESS_KIND,),
        lease_sec=settings.lease_sec,
    )


def conversion_policy(settings: Settings) -> ConversionPolicy:
    return ConversionPolicy(
        operator_s3=_operator_s3(settings),
        local_fallback=settings.storage_fallback == "local",
        bootstrap_project_id=ProjectId(settings.bootstrap_project_id),
        max_upload_bytes=settings.max_upload_bytes,
    )


def storage_policy(settings: Settings) -> StoragePolicy:
    """Where egresses put what they make."""
    return StoragePolicy(
        operator_s3=_operator_s3(settings),
        local_fallback=settings.storage_fallback == "local",
        bootstrap_project_id=ProjectId(settings.bootstrap_project_id),
        backup=_backup_s3(settings),
    )


def _operator_s3(settings: Settings) -> S3Config | None:
    if not settings.s3_bucket:
        return None
    return S3Config(
        bucket=settings.s3_bucket,
        region=settings.s3_region,
        endpoint=settings.s3_endpoint or "",
        prefix=settings.s3_prefix,
        access_key=_clear(settings.s3_access_key),
        secret_key=_clear(settings.s3_secret_key),
        cdn_url=settings.s3_cdn_url or "",
    )


def _backup_s3(settings: Settings) -> S3Config | None:
    if not settings.backup_s3_bucket:
        return None
    return S3Config(
        bucket=settings.backup_s3_bucket,
        region=settings.backup_s3_region,
        endpoint=settings.backup_s3_endpoint or "",
        prefix=settings.backup_s3_prefix,
        access_key=_clear(settings.backup_s3_access_key),
        secret_key=_clear(settings.backup_s3_secret_key),
    )


def _clear(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""
