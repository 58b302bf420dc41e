"""Which storage an egress uses: the project's of the moment it started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.db.unit_of_work import SqlDatabase
from server.domain.egress import EgressSecrets, StorageChoice
from server.domain.project import Project, S3Config
from server.egress.storage_choice import StorageChoices, StoragePolicy
from server.errors import ServiceError
from server.ids import ProjectId
from server.ports.storage import StorageTarget
from tests.contract.rows import NOW, OTHER, PROJECT, S3, add_projects

OPERATOR = S3Config(bucket="operators", access_key="OK", secret_key="OS", prefix="media/")
OPEN = EgressSecrets()


def choices(operator: S3Config | None = None, *, fallback: bool = True) -> StorageChoices:
    return StorageChoices(StoragePolicy(operator, fallback, bootstrap_project_id=ProjectId("cl_default")))


@pytest.fixture
async def db(database: SqlDatabase) -> SqlDatabase:
    """Of two projects the first has a bucket."""
    await add_projects(database)
    return database


async def frozen(db: SqlDatabase, project: ProjectId, by: StorageChoices) -> StorageChoice:
    async with db.begin() as tx:
        return (await by.frozen(tx, project, OPEN)).storages[0]


async def target(
    db: SqlDatabase, project: ProjectId, by: StorageChoices, choice: StorageChoice
) -> StorageTarget:
    async with db.read() as tx:
        return await by.target(tx, project, "EG_1", choice)


async def set_s3(db: SqlDatabase, s3: S3Config | None) -> None:
    async with db.begin() as tx:
        await tx.projects.save(Project(PROJECT, "First", NOW, s3))
        await tx.commit()


async def test_the_projects_bucket(db: SqlDatabase) -> None:
    choice = await frozen(db, PROJECT, choices(OPERATOR))
    found = await target(db, PROJECT, choices(OPERATOR), choice)
    assert found == StorageTarget(PROJECT, "EG_1", S3, "p/", trusted=True)
    assert "SK" not in repr(choice)


async def test_another_default_later_changes_nothing(db: SqlDatabase) -> None:
    """The file of before is still found, also when the default is gone."""
    choice = await frozen(db, PROJECT, choices())
    for later in (
        replace(S3, bucket="another", prefix="q/"),
        replace(S3, endpoint="https://elsewhere"),
        None,
    ):
        await set_s3(db, later)
        assert (await target(db, PROJECT, choices(), choice)).s3 == S3


async def test_keys_that_were_changed_are_the_new_ones(db: SqlDatabase) -> None:
    """Of the same bucket: those of then may be revoked by now. Its prefix stays."""
    choice = await frozen(db, PROJECT, choices())
    await set_s3(db, replace(S3, access_key="AK2", secret_key="SK2", prefix="q/"))
    found = await target(db, PROJECT, choices(), choice)
    assert found.s3 == replace(S3, access_key="AK2", secret_key="SK2")
    assert found.prefix == "p/"


async def test_the_operators_bucket_keeps_projects_apart(db: SqlDatabase) -> None:
    choice = await frozen(db, OTHER, choices(OPERATOR))
    assert (await target(db, OTHER, choices(OPERATOR), choice)).prefix == f"{OTHER}/media/"


async def test_the_data_directory_stays_it(db: SqlDatabase) -> None:
    """Also when the operator has a bucket later."""
    choice = await frozen(db, OTHER, choices())
    found = await target(db, OTHER, choices(OPERATOR), choice)
    assert found == StorageTarget(OTHER, "EG_1", None, "", trusted=True)


async def test_no_storage_at_all(db: SqlDatabase) -> None:
    """GN-11: refused before anything is recorded."""
    with pytest.raises(ServiceError) as refused:
        await frozen(db, OTHER, choices(fallback=False))
    assert refused.value.field == "s3Config"


async def test_a_requests_own_storage_is_left_alone(db: SqlDatabase) -> None:
    own = StorageChoice("s3", {"bucket": "mine"})
    async with db.begin() as tx:
        secrets = await choices().frozen(tx, PROJECT, EgressSecrets((own, StorageChoice())))
        assert secrets.storages[0] == own
        assert secrets.storages[1].config["prefix"] == "p/"
        only_own = EgressSecrets((own,))
        assert await choices().frozen(tx, OTHER, only_own) is only_own
