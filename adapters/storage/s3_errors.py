"""What S3 and the way to it fail with, in clear words and without credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import TypeVar

from adapters.storage.proxy import PROXY_ADDRESS, PROXY_LOGIN
from adapters.storage.s3_session import EndpointRefused, ProxyNotFound, ProxyRefused
from server.ports.storage import StorageError

_T = TypeVar("_T")

_RETRYABLE_CODES = {
    "BadDigest",
    "InternalError",
    "OperationAborted",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}
# What is left passes with the machine's trouble: too many open files, a disk that does not answer.
_LASTING_FILE_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
CLOCKS = "the clocks of this server and the storage differ too much"
_REASONS = {
    "AccessDenied": "access denied",
    "403": "access denied",
    "InvalidAccessKeyId": "the access key is unknown",
    "SignatureDoesNotMatch": "the secret key does not match the access key",
    "NoSuchBucket": "the bucket does not exist",
    "NoSuchKey": "no such object",
    "RequestTimeTooSkewed": CLOCKS,
    "SlowDown": "the storage asks to slow down",
}


class S3Error(StorageError):
    """A StorageError with the storage's own error code, `""` if there was no answer."""

    def __init__(self, message: str, *, retryable: bool, code: str = "") -> None:
        super().__init__(message, retryable=retryable)
        self.code = code


class S3Faults:
    """Tells of the faults of one bucket."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket

    def run(self, what: str, work: Callable[[], _T]) -> _T:
        """Does `work`, whose failure becomes an S3Error that begins with `what`."""
        from botocore import exceptions as boto

        try:
            return work()
        except StorageError:
            raise
        except boto.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            raise self.coded(what, code, status) from None
        except EndpointRefused as refusal:
            whose = "proxy" if isinstance(refusal, ProxyRefused) else "endpoint"
            raise self.error(f"{what}: the {whose}'s address is not allowed", retryable=False) from None
        except CancelledError:
            raise self.error(f"{what}: stopped", retryable=True) from None
        except boto.SSLError:
            raise self.error(f"{what}: the endpoint's certificate is not valid", retryable=False) from None
        except (boto.ReadTimeoutError, boto.ConnectTimeoutError):
            raise self.error(f"{what}: no answer from the storage in time", retryable=True) from None
        except boto.ProxyConnectionError as error:
            raise self._behind_proxy(what, error.kwargs["error"]) from None
        except (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError):
            raise self.error(f"{what}: the storage could not be reached", retryable=True) from None
        except (boto.NoCredentialsError, boto.PartialCredentialsError):
            raise self.error(f"{what}: no credentials", retryable=False) from None
        except boto.BotoCoreError as error:
            raise self.error(f"{what}: {type(error).__name__}", retryable=False) from None
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            passing = not isinstance(error, _LASTING_FILE_ERRORS)
            raise self.error(f"{what}: local file: {reason}", retryable=passing) from None

    def coded(self, what: str, code: str, status: int) -> S3Error:
        """For the storage's own error code and HTTP status."""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", code):
            code = "error"
        if status == 407:
            return self.error(f"{what}: {PROXY_LOGIN}", retryable=False)
        retryable = status >= 500 or status in (408, 429) or code in _RETRYABLE_CODES
        reason = f" ({_REASONS[code]})" if code in _REASONS else ""
        return self.error(f"{what}: {code}{reason}, HTTP {status}", retryable=retryable, code=code)

    def _behind_proxy(self, what: str, told: Exception) -> S3Error:
        """For a proxy that is not there or does not open a tunnel, by what urllib3 says."""
        from urllib3.exceptions import SSLError

        cause = getattr(told, "original_error", None)
        if isinstance(cause, ProxyNotFound):
            return self.error(f"{what}: {PROXY_ADDRESS}", retryable=True)
        if isinstance(cause, SSLError):
            return self.error(f"{what}: the proxy's certificate is not valid", retryable=False)
        found = re.search(r"Tunnel connection failed: (\d{3})\b", str(told))
        if found is None:
            return self.error(f"{what}: the proxy could not be reached", retryable=True)
        status = int(found.group(1))
        if status == 407:
            return self.error(f"{what}: {PROXY_LOGIN}", retryable=False)
        passing = status >= 500 or status in (408, 429)
        return self.error(
            f"{what}: the proxy does not connect to the storage, HTTP {status}", retryable=passing
        )

    def error(self, text: str, *, retryable: bool, code: str = "") -> S3Error:
        return S3Error(f"S3 bucket {self._bucket}: {text}", retryable=retryable, code=code)
