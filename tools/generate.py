"""Turn `protos/` into `generated/`: Python always, TypeScript and Go where Node and Go are installed.

python -m tools.generate            rewrite generated/
python -m tools.generate --check    regenerate into a temporary folder and fail on any difference
python -m tools.generate --only python
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tools.generate_docs import write_descriptions
from tools.generate_stubs import MissingToolchain, generate_go, generate_typescript, search_path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
THIRD_PARTY = ROOT / "third_party"
GENERATED = ROOT / "generated"
LANGUAGES = ("python", "ts", "go")

# google/api is not among them: its modules come from googleapis-common-protos, and a second copy
# would register the same descriptors twice.
VALIDATE = "buf/validate/validate.proto"
PREFIXED = ("baxcloud", "buf")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with generated/ instead of writing")
    parser.add_argument("--only", choices=LANGUAGES, help="one language only")
    options = parser.parse_args(argv)
    languages = (options.only,) if options.only else LANGUAGES
    drift: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bax-generate-") as scratch:
        for language in languages:
            fresh = Path(scratch) / language
            fresh.mkdir()
            try:
                generate(language, fresh)
            except MissingToolchain as missing:
                print(f"generate: SKIPPED {language}: {missing}", file=sys.stderr)
                continue
            if options.check:
                drift += differences(language, fresh)
            else:
                install(language, fresh)
    for line in drift:
        print(f"generate: {line}", file=sys.stderr)
    if drift:
        print("generate: generated/ is out of step with protos/; run `make generate`", file=sys.stderr)
    return 1 if drift else 0


def generate(language: str, out: Path) -> None:
    """Write one language's output below `out`; raises MissingToolchain when it cannot be made here."""
    if language == "python":
        generate_python(out)
    elif language == "ts":
        generate_typescript(protoc, own_protos(), out)
    else:
        generate_go(protoc, own_protos(), out)


def own_protos() -> list[str]:
    """Our proto files, relative to the proto root, sorted."""
    return sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))


def protoc(arguments: Sequence[str], *, plugins: Mapping[str, Path] | None = None) -> None:
    """Run the protoc of grpcio-tools on our include path; its messages go to stderr."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{THIRD_PARTY}"]
    command += [f"--plugin=protoc-gen-{name}={path}" for name, path in (plugins or {}).items()]
    environment = {**os.environ, "PATH": search_path()}
    done = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    noise = re.compile(r"^Writing mypy to .*\n?", re.MULTILINE)
    sys.stderr.write(noise.sub("", done.stderr))
    if done.returncode != 0:
        raise SystemExit(f"generate: protoc failed with status {done.returncode}")


def generate_python(out: Path) -> None:
    """Messages, gRPC stubs, Twirp server and clients, service protocols, as the package `generated`."""
    sources = own_protos()
    with_services = [
        name for name in sources if re.search(r"^service ", (PROTOS / name).read_text(), re.MULTILINE)
    ]
    protoc([f"--python_out={out}", f"--pyi_out={out}", *sources, VALIDATE])
    if with_services:
        with tempfile.TemporaryDirectory(prefix="bax-plugins-") as folder:
            plugins = {
                "mypy_grpc": _launcher(
                    Path(folder) / "mypy_grpc", "-c 'from mypy_protobuf.main import grpc; grpc()'"
                ),
                "service": _launcher(Path(folder) / "service", "-m tools.protoc_gen_service"),
                "twirp": _launcher(Path(folder) / "twirp", "-m tools.protoc_gen_twirp"),
            }
            outputs = [f"--{name}_out={out}" for name in ("grpc_python", *plugins)]
            protoc([*outputs, *with_services], plugins=plugins)
    write_descriptions(protoc, sources, out)
    shutil.copyfile(ROOT / "tools" / "twirp_runtime.py", out / "twirp_runtime.py")
    for path in sorted(out.rglob("*.py*")):
        path.write_text(prefix_imports(path.read_text()))
    _add_packages(out)


def prefix_imports(text: str) -> str:
    """protoc writes absolute imports from the proto root; move them below the package `generated`."""
    roots = "|".join(PREFIXED)
    text = re.sub(rf"^(from|import) ({roots})\.", r"\1 generated.\2.", text, flags=re.MULTILINE)
    # The module name that messages and enums carry, for pickling and error texts.
    return re.sub(rf"(BuildTopDescriptorsAndMessages\(DESCRIPTOR, ')({roots})\.", r"\1generated.\2.", text)


def _add_packages(out: Path) -> None:
    (out / "__init__.py").write_text(
        '"""Code generated from protos/ by tools/generate.py; never edited."""\n'
    )
    for folder in sorted(path for path in out.rglob("*") if path.is_dir()):
        name = folder.relative_to(out).as_posix().replace("/", ".")
        (folder / "__init__.py").write_text(f'"""Generated code of the proto package `{name}`."""\n')


def _launcher(path: Path, arguments: str) -> Path:
    """protoc starts plugins as executables; this one runs a module with our interpreter."""
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" {arguments}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def target(language: str) -> Path:
    return GENERATED if language == "python" else GENERATED / language


def _files(language: str, root: Path) -> Iterator[str]:
    """Generated files of one language below `root`, relative; Python owns what is not in ts/ or go/."""
    others = () if language != "python" else ("ts", "go", "openapi")
    for folder, names, files in os.walk(root):
        inside = Path(folder).relative_to(root)
        names[:] = [name for name in names if name not in ("__pycache__", "node_modules")]
        if inside == Path():
            names[:] = [name for name in names if name not in others]
        yield from ((inside / file).as_posix() for file in files)


def differences(language: str, fresh: Path) -> Iterator[str]:
    """What would change in `generated/`, one line per file."""
    current = target(language)
    expected, present = set(_files(language, fresh)), set(_files(language, current))
    for name in sorted(expected | present):
        shown = (current / name).relative_to(ROOT)
        if name not in present:
            yield f"missing {shown}"
        elif name not in expected:
            yield f"left over {shown}"
        elif not filecmp.cmp(fresh / name, current / name, shallow=False):
            yield f"differs {shown}"


def install(language: str, fresh: Path) -> None:
    """Make `generated/` equal to `fresh`, touching only files that differ."""
    current = target(language)
    expected = set(_files(language, fresh))
    for name in sorted(set(_files(language, current)) - expected):
        (current / name).unlink()
    for name in sorted(expected):
        source, destination = fresh / name, current / name
        if destination.exists() and filecmp.cmp(source, destination, shallow=False):
            continue
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    version = importlib.metadata.version("grpcio-tools")
    print(f"generate: {language}: {len(expected)} files (grpcio-tools {version})")


if __name__ == "__main__":
    raise SystemExit(main())
