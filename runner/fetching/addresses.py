"""Which addresses may be reached on a user's behalf. Pure decisions."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All that IANA has given out for the public internet (RFC 4291 §2.4); of the rest, what is mapped or translated from
IPv4 (::ffff:0:0/96, 64:ff9b::/96) can lead to any IPv4 address."""

# What `is_global` lets through, or let through in some version of Python, and still is not the public internet.
_NOT_PUBLIC: Final[tuple[Network, ...]] = tuple(
    map(
        ip_network,
        (
            "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); the metadata service of one cloud lives there
            "168.63.129.16/32",  # Azure's host, from inside every machine there
            "192.0.0.0/24",  # protocol assignments (RFC 6890); .192 is the metadata service of another cloud
            "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
            "2001::/23",  # protocol assignments, Teredo (RFC 4380) among them, which holds an IPv4 address
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4 (RFC 3056), which holds an IPv4 address
            "3fff::/20",  # documentation (RFC 9637), younger than Python 3.11
        ),
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, and cannot lead anywhere else."""
    if isinstance(address, IPv6Address) and (address.scope_id or address not in _GLOBAL_UNICAST):
        return False
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in _NOT_PUBLIC if network.version == address.version)


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be reached: the public internet, and what an operator allows beside it."""

    hosts: frozenset[str] = frozenset()
    """Names that may resolve to any address."""
    networks: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({80, 443})

    @classmethod
    def parse(cls, allow: str, ports: str) -> "Reach":
        """Reads an operator's lists.

        Args:
            allow: Names of hosts, addresses and networks (`10.1.0.0/16`), with commas between.
            ports: Port numbers, with commas between.

        Raises:
            ValueError: an entry is none of these; says which, and in which of the settings.
        """
        hosts, networks = set(), []
        for entry in _entries(allow):
            if (network := _network(entry)) is not None:
                networks.append(network)
            elif _is_host_name(entry):
                hosts.add(entry.lower().rstrip("."))
            else:
                raise ValueError(f"fetch_allow: {entry!r} is no host name, address or network such as 10.1.0.0/16")
        return cls(frozenset(hosts), tuple(networks), frozenset(map(_port, _entries(ports))))

    def allows(self, host: str, address: str) -> bool:
        """Whether `address`, one that `host` resolves to, may be connected to."""
        if host.lower().rstrip(".") in self.hosts:
            return True
        known = ip_address(address)
        return is_public(known) or any(known in network for network in self.networks)


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        return None


def _is_host_name(entry: str) -> bool:
    labels = entry.rstrip(".").split(".")
    # A name that ends in a number is an address in one of its old spellings, or a mistyped one (WHATWG URL §3.5).
    return not labels[-1].isdigit() and all(
        label.isascii() and label.replace("-", "").replace("_", "").isalnum() for label in labels
    )


def _port(entry: str) -> int:
    if not (entry.isascii() and entry.isdigit() and 0 < int(entry) < 65536):
        raise ValueError(f"fetch_ports: {entry!r} is no port number")
    return int(entry)
