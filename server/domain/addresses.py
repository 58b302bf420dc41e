"""Which network addresses count as public: the rules of the address guard, on parsed addresses only."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# An own table, because `is_global` lets multicast, 6to4, NAT64 and, on older Pythons, more through (CVE-2024-4032).
# 168.63.129.16 is Azure's host agent on a public-looking address.
_DENIED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_DENIED_V6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "3fff::/20"))

# Prefixes whose addresses end up at an IPv4 address, and how far right of the low end its 32 bits lie.
_EMBEDDING = (
    (IPv6Network("::ffff:0:0/96"), 0),  # v4-mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # v4-translated (SIIT)
    (IPv6Network("::/96"), 0),  # v4-compatible; :: and ::1 become 0.0.0.0 and 0.0.0.1, both denied
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
)


def effective(address: Address) -> Address:
    """Where packets end up: the IPv4 address inside a mapped, translated or tunnelled IPv6 one."""
    if isinstance(address, IPv6Address):
        for network, shift in _EMBEDDING:
            if address in network:
                return IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """True for unicast addresses of the public internet."""
    inner = effective(address)
    if isinstance(inner, IPv4Address):
        return not any(inner in network for network in _DENIED_V4)
    return inner in _GLOBAL_V6 and not any(inner in network for network in _DENIED_V6)


def in_networks(address: Address, networks: tuple[Network, ...]) -> bool:
    inner = effective(address)
    return any(inner.version == network.version and inner in network for network in networks)


def ends_in_number(host: str) -> bool:
    """True if resolvers read `host` as an IPv4 address in some notation (WHATWG URL, "ends in a number")."""
    last = host.rpartition(".")[2]
    return last.isdecimal() or (last[:2] in ("0x", "0X") and _is_hex(last[2:]))


def parse_ipv4(host: str) -> IPv4Address:
    """An IPv4 address in any notation of the C library: `127.1`, `0x7f000001`, `2130706433`, `017700000001`.

    Raise ValueError if it is none.
    """
    parts = [_number(part) for part in host.split(".")]
    if len(parts) > 4 or any(part > 255 for part in parts[:-1]):
        raise ValueError("not an IPv4 address")
    rest = 8 * (5 - len(parts))
    if parts[-1] >= 1 << rest:
        raise ValueError("not an IPv4 address")
    value = parts[-1]
    for index, part in enumerate(parts[:-1]):
        value |= part << (24 - 8 * index)
    return IPv4Address(value)


def _number(text: str) -> int:
    if not text.isascii() or not text.isalnum() or len(text) > 12:
        raise ValueError("not a number")
    if text[:2] in ("0x", "0X"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)
