"""Write `docs/configuration.md` from the settings class, or with `--check` fail when the two differ.

python -m tools.configuration_table            rewrite docs/configuration.md
python -m tools.configuration_table --check    fail on any difference
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import HttpUrl, SecretStr
from pydantic.fields import FieldInfo

from server.settings import CLIENT_VARIABLES, PREFIX, Settings

TARGET = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
_HEADING = re.compile(r"^    # --- (?P<title>.+)$|^    (?P<field>[a-z][a-z0-9_]*): ")
_INTRODUCTION = """\
# Configuration

This file is written by `make generate` from `server/settings.py`; `make verify` fails when the two differ.

Every setting is an environment variable `BAX_<NAME>`. The same settings may stand in a TOML file that `BAX_CONFIG` names,
as `<name>` in lower case (`http_port = 8080`). Options of `bax serve` win over the environment, the environment over the
file, the file over the default. An empty variable counts as not set. An unknown `BAX_*` variable or an unknown name in
the file stops the start, with the nearest known name.

Booleans take `1` and `0`, `true` and `false`. A default of – means that nothing is set; the text then says what happens.
The settings of all processes of one deployment must agree, except for addresses and ports.
"""
# What a reader must know of a group beyond its settings.
_NOTES = {
    "LiveKit": "With `BAX_LIVEKIT_URL`, which needs the key and the secret, that LiveKit is used; without it `bax serve` "
    "starts one of its own. The ports below are of that one: a default that is taken is replaced by a free port, one that "
    "you set is not. What LiveKit must be told, and which ports are open where, is in "
    "[operations.md](operations.md#livekit). `BAX_RTMP_PORT` is reserved: ingress answers `unimplemented` for now.",
}
_CLIENT_INTRODUCTION = """\
## Clients and tools

The server ignores these; they may stand in the same environment.
"""
_CLIENT_MEANINGS = {
    "BAX_CONFIG": "TOML file with settings of the server.",
    "BAX_URL": "Server that the `bax` commands talk to; without it they work in their own process, on the data directory.",
    "BAX_API_KEY": "API key that the `bax` commands send to `BAX_URL`.",
    "BAX_PROJECT_ID": "Project that the `bax` commands act in.",
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.configuration_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args(argv)
    text = render()
    if not options.check:
        TARGET.write_text(text)
        return 0
    if not TARGET.exists() or TARGET.read_text() != text:
        print(
            f"configuration_table: {TARGET.name} is out of step with server/settings.py; run `make generate`",
            file=sys.stderr,
        )
        return 1
    return 0


def render() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for title, names in _groups():
        rows = [(PREFIX + name.upper(), *_row(Settings.model_fields[name])) for name in names]
        note = f"\n{_NOTES[title]}\n" if title in _NOTES else ""
        parts.append(
            f"## {title[0].upper()}{title[1:]}\n{note}\n"
            + _table(("Variable", "Kind", "Default", "Meaning"), rows)
        )
    clients = [(name, _CLIENT_MEANINGS[name]) for name in sorted(CLIENT_VARIABLES)]
    parts.append(_CLIENT_INTRODUCTION + "\n" + _table(("Variable", "Meaning"), clients))
    return "\n".join(parts)


def _groups() -> Iterator[tuple[str, list[str]]]:
    """The class's own `# --- title` comments and the fields below each."""
    title, names = "", list[str]()
    for line in inspect.getsource(Settings).splitlines():
        match = _HEADING.match(line)
        if match is None:
            continue
        if match["title"]:
            if names:
                yield title, names
            title, names = match["title"], []
        elif match["field"] in Settings.model_fields:
            names.append(match["field"])
    yield title, names


def _row(field: FieldInfo) -> tuple[str, str, str]:
    return _kind(field.annotation), _default(field.default), field.description or ""


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return next(_kind(one) for one in get_args(annotation) if one is not type(None))
    if get_origin(annotation) is tuple:
        return "numbers, comma-separated"
    names = {bool: "boolean", int: "whole number", float: "number", str: "text", Path: "path"}
    return {**names, SecretStr: "secret", HttpUrl: "URL"}[annotation]


def _default(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return f"`{int(value)}`"
    if isinstance(value, tuple):
        return f"`{','.join(f'{one:g}' for one in value)}`"
    return f"`{value}`"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for name, *cells in rows:
        lines.append(f"| `{name}` | {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
