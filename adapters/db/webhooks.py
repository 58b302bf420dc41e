"""Webhook endpoints with their sealed signing secrets."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, select

from adapters.db.columns import from_micros, to_micros
from adapters.db.session import AnyRow, Session, execute, fetch_all, fetch_first
from adapters.db.tables import deliveries, webhook_endpoints
from server.domain.webhook import SigningSecret, WebhookEndpoint
from server.ids import ProjectId
from server.ports.secret_box import SecretBox

_ID = webhook_endpoints.c.id == bindparam("p_id")
_PROJECT = webhook_endpoints.c.project_id == bindparam("p_project")

_GET = select(webhook_endpoints).where(_ID, _PROJECT)
_LIST = (
    select(webhook_endpoints)
    .where(_PROJECT, webhook_endpoints.c.egress_id.is_(None))
    .order_by(webhook_endpoints.c.created_at, webhook_endpoints.c.id)
)
_SAVE = (
    webhook_endpoints.update()
    .where(_ID, _PROJECT)
    .values({name: bindparam(f"v_{name}") for name in ("url", "events", "secrets", "enabled", "updated_at")})
)
_DELETE = webhook_endpoints.delete().where(_ID, _PROJECT)
_DELETE_DELIVERIES = deliveries.delete().where(deliveries.c.endpoint_id == bindparam("p_id"))


def endpoint_secrets_context(endpoint_id: str) -> str:
    return f"webhook_endpoints|{endpoint_id}|secrets"


class SqlWebhooks:
    """Implements `WebhookRepository`."""

    def __init__(self, session: Session, box: SecretBox) -> None:
        self._session = session
        self._box = box

    async def add(self, endpoint: WebhookEndpoint) -> None:
        await execute(self._session, webhook_endpoints.insert(), self._columns(endpoint))

    async def get(self, project_id: ProjectId, endpoint_id: str) -> WebhookEndpoint | None:
        row = await fetch_first(self._session, _GET, {"p_project": project_id, "p_id": endpoint_id})
        return None if row is None else self._endpoint(row)

    async def list(self, project_id: ProjectId) -> tuple[WebhookEndpoint, ...]:
        return tuple(map(self._endpoint, await fetch_all(self._session, _LIST, {"p_project": project_id})))

    async def save(self, endpoint: WebhookEndpoint) -> None:
        columns = self._columns(endpoint)
        values = {
            f"v_{name}": columns[name] for name in ("url", "events", "secrets", "enabled", "updated_at")
        }
        await execute(self._session, _SAVE, {"p_id": endpoint.id, "p_project": endpoint.project_id, **values})

    async def delete(self, project_id: ProjectId, endpoint_id: str) -> bool:
        """Its deliveries go with it; the log of what was attempted stays until it is purged."""
        if not await execute(self._session, _DELETE, {"p_project": project_id, "p_id": endpoint_id}):
            return False
        await execute(self._session, _DELETE_DELIVERIES, {"p_id": endpoint_id})
        return True

    def _columns(self, endpoint: WebhookEndpoint) -> dict[str, Any]:
        secrets = [
            {
                "value": secret.value,
                "expiresAt": None if secret.expires_at is None else to_micros(secret.expires_at),
            }
            for secret in endpoint.secrets
        ]
        return {
            **{name: value for name, value in asdict(endpoint).items() if name != "secrets"},
            "secrets": self._box.seal(
                json.dumps(secrets).encode(), context=endpoint_secrets_context(endpoint.id)
            ),
        }

    def _endpoint(self, row: AnyRow) -> WebhookEndpoint:
        secrets = json.loads(self._box.open(row.secrets, context=endpoint_secrets_context(row.id)))
        return WebhookEndpoint(
            id=row.id,
            project_id=ProjectId(row.project_id),
            url=row.url,
            events=tuple(row.events),
            secrets=tuple(
                SigningSecret(
                    secret["value"], None if secret["expiresAt"] is None else from_micros(secret["expiresAt"])
                )
                for secret in secrets
            ),
            enabled=row.enabled,
            created_at=row.created_at,
            updated_at=row.updated_at,
            egress_id=row.egress_id,
            signing_key=row.signing_key,
        )
