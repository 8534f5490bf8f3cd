"""Who a request comes from when proxies stand before the service. Pure decisions on strings.

Anybody can send `X-Forwarded-For`. It is read from the right, each entry being what the hop after it saw, and only as
long as that hop is a proxy of the operator's. Counting hops instead (Werkzeug's ProxyFix) would believe whoever
reaches the service past the proxies.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

Address = IPv4Address | IPv6Address

_WITH_PORT: Final = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::\d{1,5})?|(?P<v4>[0-9.]+):\d{1,5}", re.ASCII)


class InvalidProxies(ValueError):
    """The list is not one of addresses and networks; the text says what to write."""


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The operator's proxies: what they say of a request is believed."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads addresses and networks with commas between.

        Raises:
            InvalidProxies: an entry is neither, or takes in everybody.
        """
        try:
            networks = tuple(ip_network(entry.strip()) for entry in text.split(",") if entry.strip())
        except ValueError:
            raise InvalidProxies("write addresses or networks with commas between, such as 10.0.0.0/8,::1") from None
        if any(network.prefixlen == 0 for network in networks):
            raise InvalidProxies("a network of all addresses would let every client choose its own; name your proxies")
        return cls(networks)

    def trusts(self, address: str) -> bool:
        """Whether an address is a proxy of the operator's."""
        if not self.networks:
            return False
        found = parse_address(address)
        return found is not None and self._trusts(found)

    def client(self, peer: str, forwarded_for: str) -> str:
        """The address of the client: the last one that no trusted proxy has.

        Args:
            peer: The address at the other end of the connection.
            forwarded_for: `X-Forwarded-For`, several headers of it joined by commas.
        """
        hops = [hop.strip() for hop in forwarded_for.split(",")]
        address = parse_address(peer)
        while address is not None and self._trusts(address) and hops:
            before = parse_address(hops.pop())
            if before is None:
                break  # the proxy did not say; what stands further left, anybody may have written
            address = before
        return peer if address is None else str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.networks)


def parse_address(text: str) -> Address | None:
    """An address, also with a port as some proxies write it; one of IPv4 in IPv6's clothes is one of IPv4."""
    with_port = _WITH_PORT.fullmatch(text)
    alone = (with_port["v6"] or with_port["v4"]) if with_port else text
    try:
        address = ip_address(alone.partition("%")[0])  # the name of an interface may hold anything (RFC 4007 §11.2)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
