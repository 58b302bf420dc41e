"""Every field of LiveKit's storage messages has its effect: none is taken and then forgotten (LK)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from livekit.protocol import egress as pb

from server.domain.egress import StorageChoice
from server.egress.outputs import storage_of
from server.egress.storage import own_target
from server.ids import ProjectId

_ROLE = "arn:aws:iam::123456789012:role/uploads"
# What a field needs beside it, or looks like; everything else takes any text.
_VALUES: dict[str, Any] = {
    "assume_role_arn": _ROLE,
    "endpoint": "https://s3.example",
    "proxy": {"url": "http://proxy:3128", "username": "me", "password": "open"},
    "metadata": {"a": "b"},
    "force_path_style": True,
}
_BESIDE: dict[str, dict[str, Any]] = {
    "assume_role_arn": {"access_key": "AK", "secret": "SK"},
    "assume_role_external_id": {"access_key": "AK", "secret": "SK", "assume_role_arn": _ROLE},
}
_PLACES = {"bucket": "calls", "container_name": "calls"}


def fields() -> Iterator[tuple[str, str]]:
    for kind in pb.StorageConfig.DESCRIPTOR.fields:
        assert kind.message_type is not None
        for field in kind.message_type.fields:
            yield kind.name, field.name


def what_becomes_of(kind: str, given: dict[str, Any]) -> tuple[Any, ...]:
    """Where objects go and how; nothing but what is in it reaches a storage."""
    choice = storage_of(json_format.ParseDict({kind: given}, pb.StorageConfig()))
    assert isinstance(choice, StorageChoice)
    target = own_target(ProjectId("clp"), "EG_1", choice)
    proxies = [one for one in (target.proxy, getattr(target.cloud, "proxy", None)) if one is not None]
    return target, [(one.url, one.username, one.password) for one in proxies]


@pytest.mark.parametrize(("kind", "name"), list(fields()))
def test_each_field_counts(kind: str, name: str) -> None:
    """With it and without it there are two different places, keys or ways: a field that LiveKit adds fails here.

    S3: LK-95, LK-96, LK-97, LK-98, LK-99, LK-100, LK-101, LK-102, LK-103. GCP: LK-104, LK-105, LK-106. Azure: LK-107,
    LK-108, LK-109. AliOSS: LK-110, LK-111, LK-112, LK-113, LK-114.
    """
    place = "container_name" if kind == "azure" else "bucket"
    beside = {place: _PLACES[place], **_BESIDE.get(name, {})}
    value = _VALUES.get(name, "another-one")
    assert what_becomes_of(kind, {**beside, name: value}) != what_becomes_of(kind, beside)


@pytest.mark.parametrize("kind", ["s3", "gcp"])
@pytest.mark.parametrize("name", [field.name for field in pb.ProxyConfig.DESCRIPTOR.fields])
def test_each_field_of_a_proxy_counts(kind: str, name: str) -> None:
    """LK-134, LK-135, LK-136."""
    whole = {"url": "http://proxy:3128", "username": "me", "password": "open"}
    other = {**whole, name: "http://another:3128" if name == "url" else "another"}
    first = what_becomes_of(kind, {"bucket": "b", "proxy": whole})
    assert first != what_becomes_of(kind, {"bucket": "b", "proxy": other})
    assert first[1] == [("http://proxy:3128", "me", "open")]
