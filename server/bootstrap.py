"""What must exist before the first call: a project, a key to it, and the operator's token."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from server.clock import Clock
from server.domain.project import ApiKey, LiveKitKey, Project
from server.ids import ProjectId, new_api_key, new_id
from server.ports.unit_of_work import Database, UnitOfWork
from server.services.projects import key_digest
from server.settings import Settings

ADMIN_TOKEN_FILE = "admin.token"  # noqa: S105 - a file name


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """`new_api_key` is set only in the start that made it: from then on just its digest is known."""

    project_id: ProjectId
    new_api_key: str | None = field(repr=False)


async def bootstrap(database: Database, settings: Settings, clock: Clock) -> Bootstrapped:
    """Creates what is missing; safe to run in several processes at once (one write transaction)."""
    project_id = ProjectId(settings.bootstrap_project_id)
    async with database.begin() as tx:
        if await tx.projects.get(project_id) is None:
            await tx.projects.add(Project(id=project_id, name="default", created_at=clock.now()))
        fresh = await _ensure_api_key(tx, project_id, settings, clock)
        await _ensure_livekit_key(tx, project_id, settings, clock)
        await tx.commit()
    return Bootstrapped(project_id=project_id, new_api_key=fresh)


async def _ensure_api_key(
    tx: UnitOfWork, project_id: ProjectId, settings: Settings, clock: Clock
) -> str | None:
    given = settings.bootstrap_api_key.get_secret_value() if settings.bootstrap_api_key else None
    if given is not None:
        known = await tx.keys.find_api_key(key_digest(given)) is not None
    else:
        known = bool(await tx.keys.list_api_keys(project_id))
    if known:
        return None
    secret = given or new_api_key()
    await tx.keys.add_api_key(
        ApiKey(
            id=new_id("key"),
            project_id=project_id,
            name="bootstrap",
            digest=key_digest(secret),
            baxstream=True,
            created_at=clock.now(),
        )
    )
    return None if given else secret


async def _ensure_livekit_key(
    tx: UnitOfWork, project_id: ProjectId, settings: Settings, clock: Clock
) -> None:
    api_key, secret = settings.bootstrap_livekit_api_key, settings.bootstrap_livekit_api_secret
    if not api_key or not secret or await tx.keys.find_livekit_key(api_key):
        return
    await tx.keys.add_livekit_key(
        LiveKitKey(
            api_key=api_key,
            project_id=project_id,
            api_secret=secret.get_secret_value(),
            created_at=clock.now(),
        )
    )


def admin_token(settings: Settings) -> str:
    """BAX_ADMIN_TOKEN, or one made once in the data directory, readable by its owner only."""
    if settings.admin_token:
        return settings.admin_token.get_secret_value()
    return _read_or_make(settings.data_dir / ADMIN_TOKEN_FILE)


def _read_or_make(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(32) + "\n")
        # Linked into place, so that of several processes starting at once one token wins, whole.
        with suppress(FileExistsError):
            path.hardlink_to(draft)
        draft.unlink()
    return path.read_text().strip()
