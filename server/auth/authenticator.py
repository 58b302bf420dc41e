"""Who may call our own services: API keys and the admin token (contract B-81, B-89)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from google.protobuf.message import Message

from generated.baxcloud.v1 import options_pb2
from server.auth.keys import KeyDirectory
from server.auth.rtcstack import RtcstackSignatures
from server.context import Caller, CallerKind, SignedRequest
from server.errors import Code, ServiceError, not_found, permission_denied, unauthenticated
from server.ids import ProjectId
from server.rpc.registry import Method, RegistryError

PROJECT_HEADER = "x-project-id"


class KeyAuthoriser:
    """Implements `Authoriser` for `baxcloud.v1` by the `access` of each method's rule.

    Without an admin token nobody is the operator; without `signatures` nobody may sign instead of showing a key.
    """

    def __init__(
        self,
        keys: KeyDirectory,
        *,
        admin_token: str | None = None,
        signatures: RtcstackSignatures | None = None,
    ) -> None:
        self._keys = keys
        self._signatures = signatures
        self._admin = _digest(admin_token) if admin_token else None

    def check(self, method: Method) -> None:
        """Refuse to serve a method whose access cannot be decided."""
        access = method.rule.access
        if access not in options_pb2.Access.values() or access == options_pb2.ACCESS_UNSPECIFIED:
            raise RegistryError(f"{method.full_name} does not say who may call it")
        if access == options_pb2.ACCESS_PROJECT_OR_ADMIN and (
            method.client_streaming or "project_id" not in method.descriptor.input_type.fields_by_name
        ):
            raise RegistryError(f"{method.full_name}: its request names no project")

    async def authenticate(
        self, method: Method, headers: Mapping[str, str], signed: SignedRequest | None
    ) -> Caller:
        """401 for bad or missing credentials, then 400 and 403 as B-89 says."""
        access = method.rule.access
        signs = access == options_pb2.ACCESS_RTCSTACK and RtcstackSignatures.used_in(headers)
        if signs and self._signatures is not None and signed is not None:
            caller = await self._signatures.verify(headers, signed)
            _check_project(caller.project_id, headers.get(PROJECT_HEADER, ""), required=False)
            return caller
        secret = _bearer(headers)
        if self._is_admin(secret):
            if access not in (options_pb2.ACCESS_ADMIN, options_pb2.ACCESS_PROJECT_OR_ADMIN):
                raise permission_denied("the admin token cannot do this; use an API key of the project")
            return Caller(CallerKind.ADMIN, ProjectId(headers.get(PROJECT_HEADER, "")) or None)
        key = await self._keys.find(secret)
        if key is None:
            raise unauthenticated()
        if access == options_pb2.ACCESS_ADMIN:
            raise permission_denied("this needs the admin token")
        named = headers.get(PROJECT_HEADER, "")
        _check_project(key.project_id, named, required=access == options_pb2.ACCESS_BAXSTREAM)
        if access == options_pb2.ACCESS_BAXSTREAM and not key.baxstream:
            raise permission_denied("this API key does not have the BaxStream permission")
        return Caller(CallerKind.API_KEY, key.project_id, key.id, key.baxstream)

    def authorise(self, method: Method, caller: Caller, request: Message) -> None:
        """An API key reaches its own project only; another one is as good as missing (design section 13)."""
        if method.rule.access == options_pb2.ACCESS_PROJECT_OR_ADMIN and caller.kind is not CallerKind.ADMIN:
            asked: str = getattr(request, "project_id")  # noqa: B009 - every such request has it, see check()
            if asked != caller.project_id:
                raise not_found("project", asked)

    def _is_admin(self, secret: str) -> bool:
        return self._admin is not None and hmac.compare_digest(_digest(secret), self._admin)


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise unauthenticated()
    return secret


def _check_project(own: ProjectId | None, named: str, *, required: bool) -> None:
    if not named:
        if required:
            message = "X-Project-Id: is required"
            raise ServiceError(Code.INVALID_ARGUMENT, message, field="X-Project-Id")
    elif named != own:
        raise permission_denied("this API key does not belong to the project that X-Project-Id names")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
