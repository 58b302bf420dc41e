"""The address guard without a network: the host corpus, ports, schemes and odd spellings (2.8 case 17)."""
# ruff: noqa: RUF001, SIM905 (look-alike characters are the subject, and the corpora read better as tables)

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.http.netguard import AddressRefused, NetGuard, Purpose, Rule, is_own_address
from adapters.http.target import BadUrl, parse_target
from server.errors import Code, ServiceError
from tests.unit.http.test_addresses import NOT_PUBLIC, PUBLIC

_SPELLINGS = """
127.1 127.0.1 0x7f000001 0x7f.1 0X7F000001 2130706433 017700000001 0177.1 0 0x0 00 127.0.0.1. 127.1.
①②⑦.0.0.1 １２７.0.0.1 127。0。0。1 ⑯⑨。②⑤④。169.254 0xa9fea9fe 2852039166 0251.0376.0251.0376
localhost LOCALHOST localhost. foo.localhost ＬＯＣＡＬＨＯＳＴ
[0:0:0:0:0:ffff:7f00:1] [::ffff:7f00:1] [0000::1] [::ffff:169.254.169.254] [::FFFF:10.0.0.1]
""".split()
PRIVATE_HOSTS = [f"[{host}]" if ":" in host else host for host in NOT_PUBLIC] + _SPELLINGS

BAD_URLS = [
    "",
    " ",
    "http:",
    "http://",
    "http:///path",
    "//host/path",
    "host/path",
    "/etc/passwd",
    "file:///etc/passwd",
    "ftp://example.com/a",
    "gopher://example.com/",
    "data:text/plain,x",
    "javascript:alert(1)",
    "concat:http://example.com/",
    "rtmp://example.com/live/key",
    "http://user@example.com/",
    "http://user:secret@example.com/",
    "http://@example.com/",
    "http://example.com@127.0.0.1/",
    "http://example.com\\@127.0.0.1/",
    "http:\\\\example.com/",
    "http://example.com /",
    " http://example.com/",
    "http://example.com/\n",
    "http://exa\tmple.com/",
    "http://example.com/\r\nHost: x",
    "http://example.com/\x00",
    "http://example.com/\x85",
    "http://example.com/\u2028",
    "http://example.com/\ud800",
    "http://exam%70le.com/",
    "http://%31%32%37.0.0.1/",
    "http://example..com/",
    "http://.example.com/",
    "http://example.com../",
    "http://-example.com/",
    "http://exa!mple.com/",
    "http://xn--a.com/",
    "http://xn--.com/",
    "http://\u200b.com/",
    "http://a\u2100b.com/",
    "http://256.1.1.1/",
    "http://1.2.3.4.5/",
    "http://8.8.8.08/",
    "http://[::1/",
    "http://::1/",
    "http://[127.0.0.1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[v1.x]/",
    "http://[::1]x/",
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:99999999/",
    "http://example.com:-1/",
    "http://example.com:+80/",
    "http://example.com:８0/",
    "http://example.com:80:80/",
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://example.com:5432/",
    "http://" + "a" * 64 + ".com/",
    "http://" + "a." * 140 + "com/",
    "http://" + "ü" * 300 + ".com/",
    "http://example.com/" + "a" * 9000,
]


async def _nothing_found(host: str) -> Sequence[str]:
    raise OSError(f"no look-up expected for {host}")


@pytest.fixture
def guard() -> NetGuard:
    return NetGuard(lookup=_nothing_found)


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
@pytest.mark.parametrize("purpose", list(Purpose))
def test_refuses_private_hosts_in_every_spelling(guard: NetGuard, purpose: Purpose, host: str) -> None:
    """2.8 case 17; design 13: the guard covers input, webhook, stream and storage addresses."""
    scheme = "rtmp" if purpose is Purpose.STREAM else "http"
    with pytest.raises(ServiceError) as raised:
        guard.check_url(f"{scheme}://{host}/x", purpose, field="inputUrl")
    assert (raised.value.code, raised.value.field) == (Code.INVALID_ARGUMENT, "inputUrl")
    assert "must not point to a private or reserved address" in raised.value.message


@pytest.mark.parametrize("url", BAD_URLS)
def test_refuses_bad_urls_naming_the_field(guard: NetGuard, url: str) -> None:
    """VC-03: not an http(s) URL → 400."""
    with pytest.raises(ServiceError) as raised:
        guard.check_url(url, Purpose.INPUT, field="inputUrl")
    assert (raised.value.code, raised.value.field) == (Code.INVALID_ARGUMENT, "inputUrl")
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("host", [f"[{host}]" if ":" in host else host for host in PUBLIC])
def test_lets_public_addresses_pass(guard: NetGuard, host: str) -> None:
    guard.check_url(f"https://{host}/x.mp4", Purpose.INPUT, field="inputUrl")


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("HTTP://Example.COM", "http://example.com/"),
        ("http://example.com:/a", "http://example.com/a"),
        ("https://example.com:8443/a?b#c", "https://example.com:8443/a?b"),
        ("https://bücher.example/ü?ü=1", "https://xn--bcher-kva.example/%C3%BC?%C3%BC=1"),
        ("https://my_bucket.s3.amazonaws.com./k", "https://my_bucket.s3.amazonaws.com/k"),
        ("http://134744072/", "http://8.8.8.8/"),
        ("http://[2606:4700:4700:0::1111]/", "http://[2606:4700:4700::1111]/"),
        (
            "https://b.example/a%2Fb/../c%20d?X-Amz-Signature=%2f+%3D~&e=a/b?c'()*!",
            "https://b.example/a%2Fb/../c%20d?X-Amz-Signature=%2f+%3D~&e=a/b?c'()*!",
        ),
        ("https://example.com?x=1", "https://example.com/?x=1"),
    ],
)
def test_keeps_signed_paths_and_normalises_hosts(url: str, sent: str) -> None:
    assert parse_target(url).url == sent


def test_ports_and_schemes_depend_on_the_purpose(guard: NetGuard) -> None:
    for url, purpose in (
        ("http://example.com:8080/", Purpose.INPUT),
        ("https://example.com:8443/", Purpose.WEBHOOK),
        ("rtmp://example.com/live/key", Purpose.STREAM),
        ("rtmps://example.com:2935/live/key", Purpose.STREAM),
        ("srt://example.com:7001?streamid=x", Purpose.STREAM),
        ("http://example.com:9000", Purpose.STORAGE),
    ):
        guard.check_url(url, purpose, field="url")
    for url, purpose in (
        ("http://example.com:9000/", Purpose.INPUT),
        ("http://example.com:25/", Purpose.WEBHOOK),
        ("rtmp://example.com:6379/live/key", Purpose.STREAM),
        ("http://example.com/", Purpose.STREAM),
        ("srt://example.com:7001", Purpose.INPUT),
        ("rtmp://example.com/", Purpose.STORAGE),
    ):
        with pytest.raises(ServiceError):
            guard.check_url(url, purpose, field="url")


def test_allow_private_lifts_addresses_and_ports_but_not_syntax() -> None:
    """Design 13: BAX_ALLOW_PRIVATE_URLS=1 lifts the guard for every purpose and port."""
    guard = NetGuard(allow_private=True, lookup=_nothing_found)
    for host in PRIVATE_HOSTS:
        guard.check_url(f"http://{host}:12345/", Purpose.WEBHOOK, field="url")
    for url in ("file:///etc/passwd", "http://user:secret@127.0.0.1/", "http://127.0.0.1\\x/"):
        with pytest.raises(ServiceError):
            guard.check_url(url, Purpose.WEBHOOK, field="url")


def test_an_opened_network_counts_for_its_purpose_only() -> None:
    lan = Rule({"http": None}, networks=(IPv4Network("10.1.0.0/16"),))
    closed = Rule({"http": None})
    guard = NetGuard(rules={Purpose.STORAGE: lan, Purpose.INPUT: closed}, lookup=_nothing_found)
    guard.check_url("http://10.1.2.3:9000", Purpose.STORAGE, field="endpoint")
    guard.check_url("http://[::ffff:10.1.2.3]:9000", Purpose.STORAGE, field="endpoint")
    for url, purpose in (("http://10.2.0.1", Purpose.STORAGE), ("http://10.1.2.3", Purpose.INPUT)):
        with pytest.raises(ServiceError):
            guard.check_url(url, purpose, field="endpoint")


def test_refuses_the_public_addresses_of_this_host() -> None:
    """2.1 rule 4: the host's own addresses, where services listen that trust it."""
    own = ip_address("8.8.4.4")
    guard = NetGuard(lookup=_nothing_found, is_own=lambda address: address == own)
    guard.check_url("http://8.8.8.8/", Purpose.INPUT, field="url")
    for host in ("8.8.4.4", "[::ffff:8.8.4.4]"):
        with pytest.raises(ServiceError):
            guard.check_url(f"http://{host}/", Purpose.INPUT, field="url")


def test_tells_an_own_address_without_a_packet() -> None:
    assert is_own_address(ip_address("127.0.0.1"))
    assert not is_own_address(ip_address("198.51.100.1"))


async def test_resolve_gives_the_vetted_addresses_and_looks_up_once() -> None:
    asked: list[str] = []

    async def lookup(host: str) -> Sequence[str]:
        asked.append(host)
        return ["8.8.8.8", "2606:4700:4700::1111"]

    pinned = await NetGuard(lookup=lookup).resolve("https://S3.Example:9000/b", Purpose.STORAGE)
    assert pinned.addresses == ("8.8.8.8", "2606:4700:4700::1111")
    assert (pinned.target.host, pinned.target.port) == ("s3.example", 9000)
    assert asked == ["s3.example"]


@pytest.mark.parametrize(
    "answer", [[], ["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["fe80::1%eth0"], ["nonsense"]]
)
async def test_resolve_refuses_unknown_and_private_names_alike(answer: list[str]) -> None:
    """2.8 case 18: one answer with a public and a private address is refused; 2.1 rule 9: one error for all."""

    async def lookup(host: str) -> Sequence[str]:
        return answer

    with pytest.raises(AddressRefused) as raised:
        await NetGuard(lookup=lookup).resolve("https://s3.example", Purpose.STORAGE)
    assert str(raised.value) == "address cannot be reached"


async def test_what_the_operator_configured_passes() -> None:
    """Design 13: the operator's own endpoints pass, on any address and port."""
    pinned = await NetGuard(lookup=_nothing_found).resolve(
        "http://127.0.0.1:9000", Purpose.STORAGE, trusted=True
    )
    assert pinned.addresses == ("127.0.0.1",)


async def test_no_url_of_the_corpus_resolves(guard: NetGuard) -> None:
    for host in PRIVATE_HOSTS:
        with pytest.raises(AddressRefused):
            await guard.resolve(f"http://{host}/", Purpose.INPUT)
    for url in BAD_URLS:
        with pytest.raises(BadUrl):
            await guard.resolve(url, Purpose.INPUT)


_URLISH = st.one_of(
    st.text(st.characters(), max_size=60),
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "https", "HTTP", "rtmp", "file", ""]),
        st.text(st.characters(), max_size=20)
        | st.from_regex(r"[\[\]0-9a-fx.:%@xn-]{0,20}", fullmatch=True)
        | st.ip_addresses().map(str),
        st.sampled_from(["", ":", ":80", ":0", ":x"]),
        st.text(st.characters(), max_size=20),
    ),
)


@given(_URLISH, st.sampled_from(list(Purpose)))
def test_never_raises_anything_but_its_own_error(url: str, purpose: Purpose) -> None:
    """2.7: property test of the URL guard."""
    with suppress(ServiceError):
        target = NetGuard(lookup=_nothing_found).check_url(url, purpose, field="url")
        assert parse_target(target.url) == target
        assert target.url.isascii()
