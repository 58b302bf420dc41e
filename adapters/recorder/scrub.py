"""Takes out of a line of text what opens doors: tokens, and credentials and query strings of URLs."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
_URL = re.compile(r"(\w+://)[^\s\"'<>)]+")


def scrubbed(text: str) -> str:
    """URLs keep their scheme and host only: the path of a stream's URL is its key."""
    return _URL.sub(_shown, _TOKEN.sub("***", text))


def _shown(found: re.Match[str]) -> str:
    host, slash, _ = found[0].removeprefix(found[1]).rpartition("@")[2].partition("/")
    return f"{found[1]}{host.partition('?')[0]}{'/***' if slash else ''}"
