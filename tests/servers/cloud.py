"""The clouds of the tests: Azurite, Microsoft's own emulator, and moto for the XML API that GCP shares with S3."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import hashlib
import hmac
import http.client
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from adapters.storage.cloud_client import CloudOptions
from server.ports.storage import AzureContainer, GcsBucket
from tests.servers.moto import moto_server
from tests.servers.s3 import S3Server, free_port, running
from tools.generate_stubs import cache_folder, search_path

_AZURITE = Path(__file__).parent / "azurite"
_INSTALL_TIMEOUT_SEC = 600
# Published with the emulator, and the same for everybody.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Azurite:
    endpoint: str

    @property
    def options(self) -> CloudOptions:
        return CloudOptions(azure_endpoint=f"{self.endpoint}/{ACCOUNT}")

    def new_bucket(self) -> str:
        name = f"container-{uuid.uuid4().hex[:12]}"
        date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        lines = ["PUT", *[""] * 11, f"x-ms-date:{date}", "x-ms-version:2021-12-02"]
        signed = "\n".join([*lines, f"/{ACCOUNT}/{ACCOUNT}/{name}", "restype:container"])
        signature = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
        headers = {
            "x-ms-date": date,
            "x-ms-version": "2021-12-02",
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
            "Content-Length": "0",
        }
        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=30)
        connection.request("PUT", f"/{ACCOUNT}/{name}?restype=container", headers=headers)
        assert connection.getresponse().status == 201
        connection.close()
        return name

    def place(self, bucket: str, account_key: str = ACCOUNT_KEY) -> AzureContainer:
        return AzureContainer(ACCOUNT, bucket, account_key)


@dataclass(frozen=True)
class GcsLike:
    """It takes any token; what is signed is looked at by tests of its own."""

    s3: S3Server

    @property
    def options(self) -> CloudOptions:
        return CloudOptions(gcs_endpoint=self.s3.endpoint)

    def new_bucket(self) -> str:
        # obstore writes - as %2D in a bucket's name, which moto takes for another name.
        name = f"bucket{uuid.uuid4().hex[:12]}"
        client = self.s3.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    def place(self, bucket: str) -> GcsBucket:
        return GcsBucket(bucket, service_account())


@functools.cache
def service_account(email: str = "recorder@project.iam.gserviceaccount.com") -> str:
    """The JSON text of a service account's key, made here."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fields = {
        "type": "service_account",
        "client_email": email,
        "private_key_id": "0123456789abcdef",
        "private_key": key.decode(),
    }
    return json.dumps(fields)


@contextlib.contextmanager
def gcs_server(folder: Path) -> Iterator[GcsLike]:
    with moto_server(folder) as server:
        yield GcsLike(server)


@contextlib.contextmanager
def azurite_server(folder: Path) -> Iterator[Azurite]:
    """Starts Azurite over `folder`; skips, saying why, where it can't be had."""
    script = _installed() / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [
        "node", str(script), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder),
        "--disableTelemetry", "--silent", "--skipApiVersionCheck",
    ]  # fmt: skip
    env = {**os.environ, "PATH": search_path()}
    with running(command, url=endpoint, log=folder / "azurite.log", env=env):
        yield Azurite(endpoint)


def _installed() -> Path:
    """The folder in the cache that holds Azurite, filled on first use; one installation at a time."""
    npm = shutil.which("npm", path=search_path())
    if npm is None or shutil.which("node", path=search_path()) is None:
        pytest.skip("there is no Node.js on this machine, so no Azurite to test Azure with")
    lock = (_AZURITE / "package-lock.json").read_bytes()
    folder = cache_folder().parent / f"azurite-{hashlib.sha256(lock).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = folder / "installed"
        if not done.exists():
            _install(npm, folder)
            done.touch()
    return folder


def _install(npm: str, folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(_AZURITE / name, folder / name)
    command = [
        npm,
        "ci",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--omit=optional",
        "--prefix",
        str(folder),
    ]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_SEC,
            env={**os.environ, "PATH": search_path()},
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"installing Azurite took over {_INSTALL_TIMEOUT_SEC} s")
    if done.returncode != 0:
        pytest.skip(f"npm could not install Azurite: {done.stderr.strip()[-300:]}")
