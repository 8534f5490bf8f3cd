"""Who a request comes from: what trusted proxies say, and nothing that a client can write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpbase.proxies import InvalidProxies, TrustedProxies

PROXIES = TrustedProxies.parse("127.0.0.1, 10.0.0.0/8, fd00::/8")
CLIENT = "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        # Nobody in between, or nobody who is trusted: what was sent is not read.
        (CLIENT, "", CLIENT),
        (CLIENT, "198.51.100.1", CLIENT),
        (CLIENT, "127.0.0.1", CLIENT),
        # One proxy, which adds what it sees to whatever was sent to it.
        ("127.0.0.1", CLIENT, CLIENT),
        ("127.0.0.1", f"1.1.1.1, {CLIENT}", CLIENT),
        ("127.0.0.1", f"10.0.0.1, {CLIENT}", CLIENT),
        ("127.0.0.1", f"unknown,evil\x00,{CLIENT}", CLIENT),
        # Several proxies, in several headers, with and without ports.
        ("127.0.0.1", f"1.1.1.1, {CLIENT},10.1.2.3, 10.0.0.7", CLIENT),
        ("127.0.0.1", f"{CLIENT}:51234, 10.0.0.7:80", CLIENT),
        ("fd00::1", "[2001:db8::7]:443, [fd00::2]", "2001:db8::7"),
        ("fd00::1%eth0", "2001:db8::7%<b>", "2001:db8::7"),
        ("::ffff:10.0.0.1", CLIENT, CLIENT),
        ("10.0.0.1", f"::ffff:{CLIENT}", CLIENT),
        # A proxy asks for itself, or does not say for whom.
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", f"{CLIENT}, unknown", "10.0.0.1"),
        ("10.0.0.1", f"{CLIENT}, 999.1.1.1", "10.0.0.1"),
        # A socket without addresses.
        ("", CLIENT, ""),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_has(peer: str, forwarded_for: str, client: str) -> None:
    assert PROXIES.client(peer, forwarded_for) == client


@given(sent=st.text(st.characters(codec="latin-1"), max_size=200))
def test_w15_nothing_that_a_client_sends_changes_who_it_is(sent: str) -> None:
    assert PROXIES.client(CLIENT, sent) == CLIENT
    assert PROXIES.client("127.0.0.1", f"{sent},{CLIENT}") == CLIENT
    assert TrustedProxies().client("127.0.0.1", sent) == "127.0.0.1"


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_by_default_nobody_is_trusted(text: str) -> None:
    assert TrustedProxies.parse(text) == TrustedProxies()
    assert not TrustedProxies().trusts("127.0.0.1")


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "*", "10.0.0", "0.0.0.0/0", "::/0"])
def test_a_list_that_is_none_or_takes_in_everybody_is_refused(text: str) -> None:
    with pytest.raises(InvalidProxies):
        TrustedProxies.parse(f"127.0.0.1,{text}")
