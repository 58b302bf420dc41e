"""`generated/ts` under the strictest compiler settings, and a call of a real server with its descriptors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers.bax import API_KEY, PROJECT, ROOT, bax_server
from tools.generate_stubs import MissingToolchain, node_plugin, search_path

_CLIENT = Path(__file__).with_name("typescript")
_TIMEOUT_SEC = 90

# The generators, which bring the compiler, are fetched on first use.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled client; skips where there is no Node.js or the compiler cannot be fetched."""
    try:
        modules = node_plugin().parents[1]
    except MissingToolchain as missing:
        pytest.skip(f"no TypeScript can be had: {missing}")
    folder = tmp_path_factory.mktemp("typescript")
    for name in ("client.ts", "tsconfig.json"):
        shutil.copyfile(_CLIENT / name, folder / name)
    shutil.copytree(ROOT / "generated" / "ts", folder / "generated")
    shutil.copyfile(ROOT / "generated" / "ts" / "package.json", folder / "package.json")
    (folder / "node_modules").symlink_to(modules)
    node("node_modules/typescript/bin/tsc", "-p", ".", folder=folder)
    return folder / "built" / "client.js"


def node(*arguments: str, folder: Path) -> str:
    """What it printed; it must have succeeded."""
    done = subprocess.run(
        ["node", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": search_path()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SEC,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_call_with_typescript_descriptors(client: Path, tmp_path: Path) -> None:
    """GN: they compile, encode, decode, and an error comes as Twirp's."""
    with bax_server(tmp_path / "bax", role="api") as server:
        told = json.loads(node(str(client), server.url, API_KEY, PROJECT, folder=client.parent))
        project = server.call("GET", f"/v1/projects/{PROJECT}").json
    assert (told["project"]["id"], told["project"]["name"]) == (PROJECT, project["name"])
    assert told["job"]["inputUrl"] == "https://example.com/a.mp4"
    assert told["job"]["metadata"] == "from TypeScript"
    assert (told["refused"]["code"], told["refused"]["meta"]["field"]) == ("invalid_argument", "hlsTime")
