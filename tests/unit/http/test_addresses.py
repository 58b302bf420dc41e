"""The pure rules on addresses (encoding-and-safety 2.1 rule 4)."""
# ruff: noqa: RUF001, SIM905 (look-alike characters are the subject, and the corpora read better as tables)

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.addresses import effective, ends_in_number, is_public, parse_ipv4

NOT_PUBLIC = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.254
168.63.129.16 169.254.169.254 169.254.170.2 169.254.170.23 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8
192.0.0.192 192.0.0.200 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9
224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:100.64.0.1 ::ffff:0:127.0.0.1
64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1 64:ff9b:1::808:808 2002:7f00:1:: 2002:a9fe:a9fe::1
2002:0a00:0001::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1 3fff::1 100::1 5f00::1 fc00::1
fd00:ec2::254 fe80::1 fec0::1 ff02::1 ff0e::1 4000::1
""".split()

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.1 169.253.255.255
172.15.255.255 172.32.0.1 192.0.1.1 192.167.255.255 192.169.0.1 198.17.255.255 198.20.0.1 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001::8 64:ff9b::808:808 2002:808:808::1 ::ffff:8.8.8.8
""".split()


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_refuses_what_is_not_on_the_public_internet(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_accepts_public_addresses_next_to_reserved_ranges(text: str) -> None:
    assert is_public(ip_address(text))


def _python_calls_special(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )


@given(st.ip_addresses(v=4))
def test_is_never_laxer_than_the_standard_library_for_ipv4(address: IPv4Address) -> None:
    assert not (is_public(address) and (_python_calls_special(address) or address.is_reserved))


@given(st.ip_addresses(v=6))
def test_is_never_laxer_than_the_standard_library_for_ipv6(address: IPv6Address) -> None:
    inner = effective(address)
    assert not (is_public(address) and _python_calls_special(inner))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_counts_the_same_in_every_ipv6_disguise(address: IPv4Address) -> None:
    number = int(address)
    disguises = (
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(0xFFFF << 48 | number),
        IPv6Address(number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | number << 80 | 1),
    )
    assert {effective(disguise) for disguise in disguises} == {address}
    assert {is_public(disguise) for disguise in disguises} == {is_public(address)}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0177.0.0.01", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("10.65535", "10.0.255.255"),
        ("8.8.8.8", "8.8.8.8"),
    ],
)
def test_reads_every_notation_of_an_ipv4_address(text: str, meant: str) -> None:
    assert ends_in_number(text)
    assert str(parse_ipv4(text)) == meant


@pytest.mark.parametrize(
    "text", ["256.1.1.1", "1.2.3.4.5", "1.2.3.256", "4294967296", "08", "1..2", "", "0x1g", "１"]
)
def test_refuses_what_only_resembles_an_ipv4_address(text: str) -> None:
    with pytest.raises(ValueError):
        parse_ipv4(text)


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4),
    st.lists(st.sampled_from(["{:d}", "0{:o}", "0x{:x}", "0X{:X}"]), min_size=4, max_size=4),
)
def test_agrees_with_the_c_library(numbers: list[int], notations: list[str]) -> None:
    text = ".".join(notation.format(number) for number, notation in zip(numbers, notations, strict=False))
    try:
        expected = socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        with pytest.raises(ValueError):
            parse_ipv4(text)
    else:
        assert str(parse_ipv4(text)) == expected
