"""Which addresses a stranger's URL may lead to."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.fetching.addresses import Reach, is_public

REACH = Reach()


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450::1"])
def test_the_public_internet(address: str) -> None:
    assert is_public(ip_address(address))
    assert REACH.allows("example.com", address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.9",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::7f00:1",
        "2001:2::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700:4700::1111%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_everything_else(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not REACH.allows("example.com", address)


PRIVATE_4 = [
    IPv4Network(net) for net in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "224.0.0.0/3")
]


@given(st.sampled_from(PRIVATE_4), st.integers(min_value=0), st.booleans())
def test_no_address_of_a_private_network_is_public_mapped_to_ipv6_or_not(
    network: IPv4Network, offset: int, is_mapped: bool
) -> None:
    address: IPv4Address | IPv6Address = network[offset % network.num_addresses]
    assert not is_public(IPv6Address(f"::ffff:{address}") if is_mapped else address)


@given(st.integers(0, 2**128 - 1))
def test_only_global_unicast_is_public_in_ipv6(number: int) -> None:
    address = IPv6Address(number)
    assert not is_public(address) or address in IPv6Network("2000::/3")


def test_an_operator_can_allow_networks_addresses_and_hosts() -> None:
    reach = Reach.parse(" 10.1.0.0/16, fd00::/8 ,127.0.0.1, Media.Example.internal. ", "80, 8080")
    assert reach.allows("x", "10.1.2.3")
    assert not reach.allows("x", "10.2.0.1")
    assert reach.allows("x", "fd00::1")
    assert reach.allows("x", "127.0.0.1")
    assert not reach.allows("x", "127.0.0.2")
    assert reach.allows("media.example.INTERNAL", "192.168.0.1")
    assert not reach.allows("evil-media.example.internal", "192.168.0.1")
    assert not reach.allows("media.example.internal.evil.example", "192.168.0.1")
    assert reach.ports == {80, 8080}


@pytest.mark.parametrize(
    "allow", ["10.1.0.0/33", "10.1.2.3/16", "http://x", "a b", "x:80", "*", "*.example", "10.1", "é"]
)
def test_a_list_that_cannot_be_read_names_its_entry(allow: str) -> None:
    with pytest.raises(ValueError, match="fetch_allow") as caught:
        Reach.parse(f"example.com,{allow}", "80")
    assert repr(allow) in str(caught.value)


@pytest.mark.parametrize("ports", ["0", "65536", "http", "-1", "80-90", "٣"])
def test_a_port_that_is_none(ports: str) -> None:
    with pytest.raises(ValueError, match="fetch_ports"):
        Reach.parse("", ports)
