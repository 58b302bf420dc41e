"""`bax secrets`: the keys that encrypt stored secrets."""

from __future__ import annotations

import asyncio
import secrets as random
from datetime import UTC, datetime
from typing import Annotated

import typer

from server.cli.output import Failed

app = typer.Typer(
    help="Keys that encrypt stored secrets: new, rotate.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("new")
def new_key(
    name: Annotated[str | None, typer.Option(help="Its name; default the date and a random part.")] = None,
) -> None:
    """Print a fresh key; put it in front of the list in BAX_SECRET_KEYS, then run `bax secrets rotate`."""
    from adapters.crypto import AesGcmSecretBox, new_key_text

    text = new_key_text(name or f"k{datetime.now(UTC):%Y%m%d}-{random.token_hex(2)}")
    try:
        AesGcmSecretBox.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--name") from error
    print(text)


@app.command("rotate")
def rotate() -> None:
    """Encrypt every stored secret anew with the first key of BAX_SECRET_KEYS.

    Safe beside running servers that have the new key in their list. When it is done, the old keys can be taken out.
    """
    from server.cli.configuration import settings_from

    settings = settings_from()
    if settings.secret_keys is None:
        raise Failed(
            "BAX_SECRET_KEYS is not set. Set it to the output of `bax secrets new`, a comma and the content of "
            f"{settings.data_dir / 'secret.key'}"
        )
    print(
        f"encrypted {asyncio.run(_rotate(settings.database, settings.secret_keys.get_secret_value()))} secrets"
    )


async def _rotate(database_url: str, keys: str) -> int:
    from adapters.crypto import AesGcmSecretBox
    from adapters.db.rotation import reencrypt
    from adapters.db.unit_of_work import open_database
    from server.errors import ServiceError
    from server.ports.secret_box import SecretsUnreadable

    try:
        database = await open_database(database_url, AesGcmSecretBox.parse(keys))
        try:
            return await reencrypt(database)
        finally:
            await database.close()
    except ServiceError as error:
        raise Failed(error.message) from error
    except (SecretsUnreadable, ValueError, OSError) as error:
        raise Failed(str(error)) from error
