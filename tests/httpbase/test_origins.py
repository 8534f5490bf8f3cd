"""What the operator may write for an origin: exactly what a browser sends."""

import pytest

from httpbase.origins import InvalidOrigins, is_allowed, parse_origins


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        (" , ", ()),
        ("https://app.example", ("https://app.example",)),
        ("https://app.example , http://localhost:3000,", ("https://app.example", "http://localhost:3000")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("https://xn--bcher-kva.example:8443", ("https://xn--bcher-kva.example:8443",)),
    ],
)
def test_a_list_of_origins_is_read(text: str, origins: tuple[str, ...]) -> None:
    assert parse_origins(text) == origins


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "app.example",
        "https://",
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?x",
        "https://app.example#x",
        "https://*.example",
        "https://user@app.example",
        "https://App.example",
        "HTTPS://app.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://app.example:",
        "https://app.example:99999",
        "https://app .example",
        "https://b\u00fccher.example",
        "ftp://app.example",
        "https://[::1",
    ],
)
def test_what_no_browser_sends_is_refused(text: str) -> None:
    with pytest.raises(InvalidOrigins, match=r"https://app\.example\.com"):
        parse_origins(f"https://fine.example,{text}")


@pytest.mark.parametrize(
    ("origin", "allowed", "may_be_missing", "verdict"),
    [
        ("https://anybody.example", (), True, True),
        ("https://app.example", ("https://app.example",), True, True),
        ("https://app.example.evil", ("https://app.example",), True, False),
        (None, ("https://app.example",), True, True),
        (None, ("https://app.example",), False, False),
        (None, (), False, False),
        ("", ("https://app.example",), True, False),
    ],
)
def test_who_may_come(origin: str | None, allowed: tuple[str, ...], may_be_missing: bool, verdict: bool) -> None:
    assert is_allowed(origin, allowed, may_be_missing=may_be_missing) is verdict
