"""Keys of an AWS role, taken on with the keys of a request and renewed while they are needed (`assume_role_arn`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from adapters.storage.s3_errors import CLOCKS, S3Faults
from server.domain.project import S3Config
from server.ports.storage import AssumeRole

_WHAT = "assume_role_arn"
_SESSION = "baxcloud"
_GIVEN = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
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

    assuming = _Assuming(sts, role, faults)
    session = Session()
    keys = DeferredRefreshableCredentials(refresh_using=assuming.fetch, method="assume-role")
    session.register_component("credential_provider", _Only(keys))
    return boto3.session.Session(botocore_session=session)


class _Assuming:
    """Asks for keys of the role; one call at a time, as botocore does it."""

    def __init__(self, sts: Any, role: AssumeRole, faults: S3Faults) -> None:
        self._sts = sts
        self._faults = faults
        self._asked = {"RoleArn": role.arn, "RoleSessionName": _SESSION}
        if role.external_id:
            self._asked["ExternalId"] = role.external_id
        self._status = 0
        sts.meta.events.register("before-parse.sts.AssumeRole", self._note_status)

    def fetch(self) -> dict[str, Any]:
        """As botocore wants it. Raise S3Error."""
        given = self._faults.run(_WHAT, self._answer)
        expires: datetime = given["Expiration"]
        if expires.tzinfo is None:
            expires = expires.replace(tzinfo=UTC)
        if expires <= datetime.now(UTC):
            # botocore would break off with a RuntimeError.
            raise self._faults.error(
                f"{_WHAT}: the keys that it gave have expired ({CLOCKS})", retryable=True
            )
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": expires.isoformat(),
        }

    def _answer(self) -> dict[str, Any]:
        """What STS gave, all of it there."""
        from botocore.parsers import ResponseParserError

        try:
            given: dict[str, Any] = self._sts.assume_role(**self._asked)["Credentials"]
            missing = [name for name in _GIVEN if not given.get(name)]
        except (ResponseParserError, LookupError, TypeError, ValueError):
            # A web server or a proxy that knows nothing of STS, in front of it or instead of it.
            missing = list(_GIVEN)
        if not missing:
            return given
        if self._status >= 300:
            raise self._faults.coded(_WHAT, "", self._status)
        raise self._faults.error(f"{_WHAT}: the endpoint answers, but not as STS does", retryable=False)

    def _note_status(self, response_dict: dict[str, Any], **_: Any) -> None:
        self._status = response_dict["status_code"]


class _Only:
    """A credential resolver that knows one answer: nothing of this server's own environment is tried."""

    def __init__(self, keys: Any) -> None:
        self._keys = keys

    def load_credentials(self) -> Any:
        return self._keys
