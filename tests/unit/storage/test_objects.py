"""Prefixes, addresses, effective storage and capabilities (pure)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from server.domain.objects import (
    CapabilitySigner,
    Destination,
    Grant,
    Refusal,
    cache_control,
    check_s3,
    content_type,
    effective_s3,
    is_growing,
    join_url,
    normalise_prefix,
    s3_url,
)
from server.domain.project import S3Config
from server.errors import Code, ServiceError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALONE = S3Config(bucket="own", access_key="own-access", secret_key="own-secret")
PROJECT = S3Config(
    bucket="project", prefix="/base", access_key="pa", secret_key="ps", cdn_url="https://cdn.example.com"
)
OPERATOR = S3Config(bucket="operator", region="eu-west-1")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ""),
        ("/", ""),
        ("///", ""),
        ("videos", "videos/"),
        ("/videos/", "videos/"),
        ("videos/my-video/", "videos/my-video/"),
        ("vide\u0301os", "vid\u00e9os/"),
        ("日本 x", "日本 x/"),
        ("...", ".../"),
    ],
)
def test_prefixes_are_normalised(given: str, expected: str) -> None:
    """B-34, VC-17."""
    assert normalise_prefix(given) == expected


@pytest.mark.parametrize(
    "given",
    [
        "..", "a/../b", "./a", "a/./b", "a//b", "a//", "a\\b", "a\x00", "a\nb", "\x7f", "a\x85b", "\ud800",
        "x" * 256, "é" * 128, "/".join(["x" * 200] * 5),
    ],
)  # fmt: skip
def test_hostile_prefixes_are_refused(given: str) -> None:
    """Row 26: 400 naming the field."""
    with pytest.raises(ServiceError) as refused:
        normalise_prefix(given)
    assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "s3Config.prefix")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            S3Config(bucket="b", endpoint="https://s3.example.com:9000/"),
            "https://s3.example.com:9000/b/videos/m.ts",
        ),
        (S3Config(bucket="b", region="us-east-1"), "https://b.s3.us-east-1.amazonaws.com/videos/m.ts"),
        (S3Config(bucket="b", region="cn-north-1"), "https://b.s3.cn-north-1.amazonaws.com.cn/videos/m.ts"),
        (S3Config(bucket="b", region="auto"), "https://b.s3.amazonaws.com/videos/m.ts"),
        (S3Config(bucket="b"), "https://b.s3.amazonaws.com/videos/m.ts"),
        (S3Config(bucket="b", endpoint="https://e", cdn_url="https://c/x/"), "https://c/x/videos/m.ts"),
    ],
)
def test_public_addresses(config: S3Config, expected: str) -> None:
    """B-35, VC-20, VC-74."""
    assert s3_url(config, "videos/m.ts") == expected


def test_the_seeds_rewrite() -> None:
    """VC-22: prefix `videos/` with and without cdnUrl yields exactly these two."""
    config = S3Config(bucket="my-bucket", region="us-east-1")
    key = normalise_prefix("videos/") + "master.m3u8"
    assert s3_url(config, key) == "https://my-bucket.s3.us-east-1.amazonaws.com/videos/master.m3u8"
    with_cdn = replace(config, cdn_url="https://cdn.example.com")
    assert s3_url(with_cdn, key) == "https://cdn.example.com/videos/master.m3u8"


def test_keys_are_percent_encoded() -> None:
    assert join_url("https://c", "a b/ü?#%.ts") == "https://c/a%20b/%C3%BC%3F%23%25.ts"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("v/master.m3u8", "application/vnd.apple.mpegurl"),
        ("v/segment_000.ts", "video/mp2t"),
        ("thumbnail.JPG", "image/jpeg"),
        ("subs.vtt", "text/vtt"),
        ("x.manifest.json", "application/json"),
        ("page.html", "application/octet-stream"),
        ("drawing.svg", "application/octet-stream"),
        ("m3u8", "application/vnd.apple.mpegurl"),
        ("a.ts/plain", "application/octet-stream"),
    ],
)
def test_content_types(key: str, expected: str) -> None:
    """HTML and SVG never get a type that a browser would run on the API's origin."""
    assert content_type(key) == expected


def test_cache_times() -> None:
    playlist = content_type("p.m3u8")
    assert cache_control(playlist, growing=True) == "public, max-age=1"
    assert cache_control(playlist, growing=False) == "public, max-age=60"
    assert "immutable" in cache_control("video/mp2t", immutable=True)
    assert "immutable" not in cache_control("video/mp2t")
    assert is_growing(b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n")
    assert not is_growing(b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-ENDLIST\n")
    assert not is_growing(b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n360p/playlist.m3u8\n")


class TestEffectiveStorage:
    @staticmethod
    def merged(*configs: S3Config | None, operator_folder: str = "") -> S3Config:
        merged = effective_s3(*configs, operator_folder=operator_folder)
        assert merged.s3 is not None
        assert merged.s3.prefix == merged.prefix
        return merged.s3

    def test_a_request_that_stands_alone_borrows_nothing(self) -> None:
        """GN-13, design 13: no CDN, prefix or key of the project is filled in."""
        assert effective_s3(ALONE, PROJECT, OPERATOR) == Destination(ALONE, "", trusted=False)

    @pytest.mark.parametrize(
        ("request_config", "field"),
        [
            (replace(ALONE, bucket=""), "s3Config.bucket"),
            (S3Config(endpoint="https://s3.example.com"), "s3Config.bucket"),
            (replace(ALONE, access_key=""), "s3Config.accessKey"),
            (replace(ALONE, secret_key=""), "s3Config.secretKey"),
            (replace(ALONE, bucket="../x"), "s3Config.bucket"),
            (replace(ALONE, bucket="arn:aws:s3:us-east-1:1:accesspoint/x"), "s3Config.bucket"),
            (replace(ALONE, bucket="a..b"), "s3Config.bucket"),
            (replace(ALONE, region="evil.com/#"), "s3Config.region"),
            (replace(ALONE, region="us_east"), "s3Config.region"),
            (replace(ALONE, endpoint="ftp://x"), "s3Config.endpoint"),
            (replace(ALONE, endpoint="https://u:p@x"), "s3Config.endpoint"),
            (replace(ALONE, endpoint="https://x/?a=1"), "s3Config.endpoint"),
            (replace(ALONE, endpoint="https://x#f"), "s3Config.endpoint"),
            (replace(ALONE, endpoint="https://x:99999"), "s3Config.endpoint"),
            (replace(ALONE, endpoint="https://[::1"), "s3Config.endpoint"),
            (replace(ALONE, cdn_url="javascript:alert(1)"), "s3Config.cdnUrl"),
            (replace(ALONE, prefix="../x"), "s3Config.prefix"),
            (replace(ALONE, access_key="a\nb"), "s3Config.accessKey"),
        ],
    )
    def test_what_stands_alone_must_be_whole(self, request_config: S3Config, field: str) -> None:
        """VC-14: 400 naming the field, even though the project has a default; no credentials in the text."""
        with pytest.raises(ServiceError) as refused:
            effective_s3(request_config, PROJECT)
        assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, field)
        assert "own-secret" not in refused.value.message

    def test_prefix_and_cdn_are_laid_over_the_project(self) -> None:
        """GN-11 (a), VC-21: only what the request names changes."""
        kept = self.merged(None, PROJECT, OPERATOR)
        assert (kept.bucket, kept.prefix, kept.cdn_url) == ("project", "base/", "https://cdn.example.com")
        assert effective_s3(None, PROJECT, OPERATOR).trusted
        other = self.merged(S3Config(prefix="mine", cdn_url="https://c2"), PROJECT, OPERATOR)
        assert (other.bucket, other.secret_key, other.prefix) == ("project", "ps", "mine/")
        assert other.cdn_url == "https://c2"
        assert effective_s3(S3Config(region="auto"), PROJECT) == effective_s3(None, PROJECT)

    def test_the_operators_default_comes_last(self) -> None:
        """Projects that share the operator's bucket are kept in folders of their own; the bootstrap one is not."""
        assert effective_s3(None, None, OPERATOR) == Destination(OPERATOR, "", trusted=True)
        shared = self.merged(S3Config(prefix="v"), None, OPERATOR, operator_folder="clp")
        assert (shared.bucket, shared.prefix) == ("operator", "clp/v/")
        assert effective_s3(None, PROJECT, OPERATOR, operator_folder="clp").prefix == "base/"

    def test_without_any_default_the_data_directory_takes_it(self) -> None:
        """GN-11 (c) as ruled by design 13."""
        assert effective_s3(None, None) == Destination(None, "", trusted=True)
        assert effective_s3(S3Config(prefix="/v"), None) == Destination(None, "v/", trusted=True)

    @pytest.mark.parametrize("request_config", [None, S3Config(prefix="v"), S3Config(cdn_url="https://c")])
    def test_without_fallback_a_target_is_required(self, request_config: S3Config | None) -> None:
        """GN-11 (c) with BAX_STORAGE_FALLBACK=none: 400 naming `s3Config`."""
        with pytest.raises(ServiceError) as refused:
            effective_s3(request_config, None, local_fallback=False)
        assert (refused.value.code, refused.value.field) == (Code.INVALID_ARGUMENT, "s3Config")

    @pytest.mark.parametrize("extra", [S3Config(cdn_url="https://c"), S3Config(region="eu-west-1")])
    def test_cdn_or_region_without_any_bucket(self, extra: S3Config) -> None:
        """VC-14."""
        with pytest.raises(ServiceError) as refused:
            effective_s3(extra, None)
        assert refused.value.field == "s3Config.bucket"

    def test_a_region_belongs_to_a_bucket(self) -> None:
        """A region for the project's bucket would break every upload; it is refused at once."""
        with pytest.raises(ServiceError) as refused:
            effective_s3(S3Config(region="eu-west-1"), PROJECT)
        assert refused.value.field == "s3Config.bucket"

    def test_the_operator_may_use_the_machines_credentials(self) -> None:
        check_s3(OPERATOR, field="BAX_S3", keys_required=False)
        with pytest.raises(ServiceError, match=r"BAX_S3\.secretKey"):
            check_s3(replace(OPERATOR, access_key="a"), field="BAX_S3", keys_required=False)


class TestCapability:
    signer = CapabilitySigner([b"new", b"old"])
    grant = Grant("clproject", "cmjob")

    def test_round_trip(self) -> None:
        assert self.signer.open(self.signer.issue(self.grant), NOW) == self.grant

    def test_old_keys_are_still_accepted(self) -> None:
        issued = CapabilitySigner([b"old"]).issue(self.grant)
        assert self.signer.open(issued, NOW) == self.grant
        assert CapabilitySigner([b"other"]).open(issued, NOW) is Refusal.MISSING

    def test_expiry(self) -> None:
        expires = int(NOW.timestamp()) + 60
        issued = self.signer.issue(replace(self.grant, expires_at=expires))
        assert self.signer.open(issued, NOW + timedelta(seconds=59)) == replace(
            self.grant, expires_at=expires
        )
        assert self.signer.open(issued, NOW + timedelta(seconds=60)) is Refusal.EXPIRED

    def test_nothing_can_be_changed(self) -> None:
        """Every change of one character, and every cut, is refused; so is taking the expiry away."""
        issued = self.signer.issue(replace(self.grant, expires_at=1))
        for at in range(len(issued)):
            for other in ("A", "B", ".", "é"):
                changed = issued[:at] + other + issued[at + 1 :]
                if changed != issued:
                    assert self.signer.open(changed, NOW) is Refusal.MISSING
            assert self.signer.open(issued[:at], NOW) is Refusal.MISSING
        project, scope, _, mac = issued.split(".")
        assert self.signer.open(f"{project}.{scope}.{mac}", NOW) is Refusal.MISSING

    @pytest.mark.parametrize("name", ["", "..", "a/b", "a.b", "x" * 101, "ü"])
    def test_names_that_could_be_paths_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="identifiers"):
            Grant("clproject", name)
        with pytest.raises(ValueError, match="identifiers"):
            Grant(name, "cmjob")

    def test_a_key_is_needed(self) -> None:
        with pytest.raises(ValueError, match="secret key"):
            CapabilitySigner([])
        with pytest.raises(ValueError, match="secret key"):
            CapabilitySigner([b""])
