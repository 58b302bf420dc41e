"""Keys of an AWS role, taken on with the keys of a request and renewed while they are needed (`assume_role_arn`)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from adapters.storage.s3_errors import S3Faults
from server.domain.project import S3Config
from server.ports.storage import AssumeRole

_SESSION = "baxcloud"
_AWS = (".amazonaws.com", ".amazonaws.com.cn")


def sts_endpoint(config: S3Config) -> str | None:
    """Self-hosted S3 (MinIO, Ceph) answers STS at its own address; None for AWS, which has its own for each region."""
    host = urlsplit(config.endpoint).hostname or ""
    return None if not host or f".{host}".endswith(_AWS) else config.endpoint.rstrip("/")


def assuming_session(sts: Any, role: AssumeRole, faults: S3Faults) -> Any:
    """A boto3 session whose keys are the role's: asked for with the first request, in its thread, and again in time.

    Requests of its clients raise S3Error, beginning with `assume_role_arn`, where the role is refused.
    """
    import boto3
    from botocore.credentials import DeferredRefreshableCredentials
    from botocore.session import Session

    asked = {"RoleArn": role.arn, "RoleSessionName": _SESSION}
    if role.external_id:
        asked["ExternalId"] = role.external_id

    def fetch() -> dict[str, Any]:
        given = faults.run("assume_role_arn", lambda: sts.assume_role(**asked))["Credentials"]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    session = Session()
    keys = DeferredRefreshableCredentials(refresh_using=fetch, method="assume-role")
    session.register_component("credential_provider", _Only(keys))
    return boto3.session.Session(botocore_session=session)


class _Only:
    """A credential resolver that knows one answer: nothing of this server's own environment is tried."""

    def __init__(self, keys: Any) -> None:
        self._keys = keys

    def load_credentials(self) -> Any:
        return self._keys
