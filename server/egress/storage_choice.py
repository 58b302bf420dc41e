"""Which default storage an egress uses: decided when it starts, and the same for whoever asks later."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from server.domain.egress import EgressSecrets, StorageChoice
from server.domain.json_form import from_json
from server.domain.objects import Destination, effective_s3
from server.domain.project import S3Config
from server.ids import ProjectId
from server.ports.storage import StorageTarget
from server.ports.unit_of_work import UnitOfWork

PROJECT = "project"


@dataclass(frozen=True, slots=True)
class StoragePolicy:
    """What the operator decides, as for conversions (design section 13); `backup` takes what the first choice does not."""

    operator_s3: S3Config | None
    local_fallback: bool
    bootstrap_project_id: ProjectId
    backup: S3Config | None = None


class StorageChoices:
    """The project's storage as a `StorageChoice`; choices of a request's own pass through untouched.

    A frozen choice has a `prefix` in its config, and an `s3` unless it is the data directory: a project that changes
    its default later still finds the recordings of before.
    """

    def __init__(self, policy: StoragePolicy) -> None:
        self._policy = policy

    async def frozen(self, tx: UnitOfWork, project_id: ProjectId, secrets: EgressSecrets) -> EgressSecrets:
        """Raise ServiceError invalid_argument naming `s3Config` where there is no default and no fallback."""
        if not any(_is_open(choice) for choice in secrets.storages):
            return secrets
        chosen = await self._default(tx, project_id)
        config = {"prefix": chosen.prefix, **({"s3": asdict(chosen.s3)} if chosen.s3 else {})}
        frozen = StorageChoice(PROJECT, config)
        return replace(
            secrets, storages=tuple(frozen if _is_open(choice) else choice for choice in secrets.storages)
        )

    async def target(
        self, tx: UnitOfWork, project_id: ProjectId, scope: str, choice: StorageChoice
    ) -> StorageTarget:
        """Of a choice with backend `project`; `scope` is the egress.

        Keys that were changed since are taken from today's default, if that is still the same bucket.
        """
        today = await self._default(tx, project_id)
        if _is_open(choice):
            return StorageTarget(project_id, scope, today.s3, today.prefix, trusted=True)
        s3: S3Config | None = None
        if "s3" in choice.config:
            s3 = from_json(S3Config, choice.config["s3"])
            now = today.s3
            if now is not None and (now.bucket, now.endpoint) == (s3.bucket, s3.endpoint):
                s3 = replace(s3, access_key=now.access_key, secret_key=now.secret_key)
        return StorageTarget(project_id, scope, s3, str(choice.config["prefix"]), trusted=True)

    async def _default(self, tx: UnitOfWork, project_id: ProjectId) -> Destination:
        project = await tx.projects.get(project_id)
        return effective_s3(
            None,
            project.s3 if project else None,
            self._policy.operator_s3,
            operator_folder="" if project_id == self._policy.bootstrap_project_id else project_id,
            local_fallback=self._policy.local_fallback,
        )


def _is_open(choice: StorageChoice) -> bool:
    return choice.backend == PROJECT and not choice.config
