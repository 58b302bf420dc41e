"""Secrets in the database: never in the clear, bound to their place, rotated, and missed loudly."""

from __future__ import annotations

import base64
import stat
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from adapters.crypto import AesGcmSecretBox, load_or_create_keys, new_key_text
from adapters.db.rotation import BATCH, reencrypt
from adapters.db.unit_of_work import SqlDatabase, open_database
from adapters.db.url import DatabaseUrl
from server.domain.egress import Destination, EgressSecrets, Orders, StorageChoice
from server.domain.project import LiveKitKey, S3Config
from server.domain.recording import AutoEgress
from server.domain.webhook import SigningSecret
from server.ids import JobId
from server.ports.secret_box import SecretsUnreadable
from tests.contract.rows import NOW, PROJECT, add_endpoints, add_job, add_projects, endpoint, new_job
from tests.contract.test_egress_rows import egress
from tests.servers.postgres import PostgresServer

MARKERS = [f"MARKER{number}secretvalue" for number in range(9)]
JOB = JobId("cm_secret")
EGRESS = egress(id="EG_secret")

Dump = Callable[[], bytes]


@pytest.fixture
def dump(database_url: str, request: pytest.FixtureRequest) -> Dump:
    """Everything that is stored: the database's files, or a pg_dump."""
    path = DatabaseUrl.parse(database_url).path
    if path is not None:
        return lambda: b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))
    server: PostgresServer = request.getfixturevalue("postgres")
    program = server.program("pg_dump")
    return lambda: (
        subprocess.run([program, "--inserts", database_url], check=True, capture_output=True).stdout
    )


async def store_secrets(database: SqlDatabase) -> None:
    await add_projects(database)
    await add_endpoints(database, endpoint(secrets=(SigningSecret(MARKERS[3], NOW),)))
    await add_job(database, new_job(JOB, secrets={"secretKey": MARKERS[4]}))
    async with database.begin() as tx:
        project = await tx.projects.get(PROJECT)
        assert project is not None
        s3 = S3Config(bucket="visible-bucket", access_key=MARKERS[0], secret_key=MARKERS[1])
        await tx.projects.save(type(project)(PROJECT, "First", NOW, s3))
        await tx.keys.add_livekit_key(LiveKitKey("API1", PROJECT, MARKERS[2], NOW))
        orders = Orders(destinations=(Destination("d", f"rtmp://h/a/{MARKERS[6]}"),))
        choice = StorageChoice("s3", {"secret": MARKERS[7]})
        await tx.egresses.add(EGRESS, orders, EgressSecrets((choice,)))
        await tx.auto_egress.save(AutoEgress(PROJECT, urls=(MARKERS[8],)))
        await tx.idempotency.begin("p", "key", "m", "f", NOW)
        await tx.idempotency.finish("p", "key", "m", f'{{"key":"{MARKERS[5]}"}}'.encode())
        await tx.commit()


async def read_secrets(database: SqlDatabase) -> list[str]:
    async with database.begin() as tx:
        project = await tx.projects.get(PROJECT)
        pair = await tx.keys.find_livekit_key("API1")
        hook = await tx.webhooks.get(PROJECT, "wh_1")
        reply = await tx.idempotency.begin("p", "key", "m", "f", NOW)
        job = await tx.jobs.secrets(JOB)
        (destination,) = (await tx.egresses.orders(EGRESS.id)).destinations
        (storage,) = (await tx.egresses.secrets(EGRESS.id)).storages
        rules = await tx.auto_egress.get(PROJECT)
    assert rules is not None
    assert project is not None
    assert project.s3 is not None
    assert pair is not None
    assert hook is not None
    assert reply is not None
    assert reply.reply is not None
    answer = reply.reply.decode()[8:-2]
    return [
        project.s3.access_key, project.s3.secret_key, pair.api_secret, hook.secrets[0].value, job["secretKey"], answer,
        destination.url.removeprefix("rtmp://h/a/"), storage.config["secret"], rules.urls[0],
    ]  # fmt: skip


def spellings(marker: str) -> list[bytes]:
    encoded = [base64.b64encode(b"x" * shift + marker.encode())[4:-4] for shift in range(3)]
    return [marker.encode(), marker[::-1].encode(), marker.encode().hex().encode(), *encoded]


async def test_no_secret_is_stored_in_the_clear(database: SqlDatabase, dump: Dump) -> None:
    await store_secrets(database)
    assert await read_secrets(database) == MARKERS
    stored = dump()
    assert b"visible-bucket" in stored
    for marker in MARKERS:
        for spelling in spellings(marker):
            assert spelling not in stored, marker


async def test_a_value_moved_to_another_row_does_not_open(database: SqlDatabase) -> None:
    await store_secrets(database)
    await add_job(database, new_job(JobId("cm_thief")))
    async with database.begin() as tx:
        await tx.run_sync(
            lambda connection: connection.exec_driver_sql(
                "UPDATE jobs SET secrets = (SELECT secrets FROM jobs WHERE id = 'cm_secret') WHERE id = 'cm_thief'"
            )
        )
        await tx.commit()
    async with database.read() as tx:
        with pytest.raises(SecretsUnreadable):
            await tx.jobs.secrets(JobId("cm_thief"))


async def test_a_start_without_the_key_fails_and_says_what_to_do(
    database: SqlDatabase, database_url: str, secret_keys: str
) -> None:
    for keys in ("v2:" + new_key_text().partition(":")[2], new_key_text()):
        with pytest.raises(SecretsUnreadable, match="BAX_SECRET_KEYS") as caught:
            await open_database(database_url, AesGcmSecretBox.parse(keys), migrated=True)
        assert keys.partition(":")[2] not in str(caught.value)
        assert secret_keys.partition(":")[2] not in str(caught.value)


async def test_rotation(
    database: SqlDatabase,
    database_url: str,
    secret_keys: str,
    closing: Callable[[SqlDatabase], Awaitable[None]],
) -> None:
    """A new key in front reads everything; after `reencrypt` the old one is no longer needed, and not before."""
    await store_secrets(database)
    for number in range(BATCH + 3):
        await add_job(database, new_job(JobId(f"cm_{number:04}"), secrets={"n": number}))
    new = new_key_text("v2")
    with pytest.raises(SecretsUnreadable):
        await open_database(database_url, AesGcmSecretBox.parse(new), migrated=True)
    both = await open_database(database_url, AesGcmSecretBox.parse(f"{new},{secret_keys}"), migrated=True)
    await closing(both)
    assert await read_secrets(both) == MARKERS
    assert await reencrypt(both) == 8 + BATCH + 3
    assert await reencrypt(both) == 0
    only = await open_database(database_url, AesGcmSecretBox.parse(new), migrated=True)
    await closing(only)
    assert await read_secrets(only) == MARKERS
    async with only.read() as tx:
        assert await tx.jobs.secrets(JobId("cm_0202")) == {"n": 202}


@pytest.fixture
async def closing() -> object:
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:

        async def register(database: SqlDatabase) -> None:
            stack.push_async_callback(database.close)

        yield register


class TestKeys:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "nocolon",
            "v1:",
            "v1:AAAA",
            "v1:***",
            "a b:" + "A" * 43 + "=",
            ":" + "A" * 43 + "=",
            "ä:" + "A" * 43 + "=",
        ],
    )
    def test_unusable_lists_are_refused_without_repeating_them(self, text: str) -> None:
        with pytest.raises(ValueError, match="secret key") as caught:
            AesGcmSecretBox.parse(text)
        assert "AAAA" not in str(caught.value)

    def test_a_name_given_twice_is_refused(self) -> None:
        with pytest.raises(ValueError, match="twice"):
            AesGcmSecretBox.parse(f"{new_key_text()},{new_key_text()}")

    def test_url_safe_and_spaced_lists_are_read(self) -> None:
        raw = bytes(range(224, 256))
        standard = AesGcmSecretBox.parse("k:" + base64.b64encode(raw).decode())
        other = AesGcmSecretBox.parse(f" {new_key_text('x')} , k:{base64.urlsafe_b64encode(raw).decode()} ,")
        assert other.open(standard.seal(b"s", context="c"), context="c") == b"s"

    def test_the_repr_names_no_key(self) -> None:
        text = new_key_text()
        assert text.partition(":")[2] not in repr(AesGcmSecretBox.parse(text))

    @pytest.mark.parametrize("cut", range(0, 38, 3))
    def test_altered_values_do_not_open(self, cut: int) -> None:
        box = AesGcmSecretBox.parse(new_key_text())
        sealed = box.seal(b"secret", context="t|1|c")
        for damaged in (sealed[:cut], sealed[:cut] + b"\x07" + sealed[cut + 1 :] + b"\0"):
            with pytest.raises(SecretsUnreadable):
                box.open(damaged, context="t|1|c")
        with pytest.raises(SecretsUnreadable):
            box.open(sealed, context="t|2|c")

    def test_the_embedded_key_is_made_once_for_its_owner_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "data"
        keys = load_or_create_keys(folder)
        assert load_or_create_keys(folder) == keys
        AesGcmSecretBox.parse(keys)
        (file,) = folder.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
