"""Whether a request was made by our own pages: the defence against cross-site request forgery.

Every browser since 2020 says where a request comes from and lets no page forge it: Fetch Metadata
(W3C, `Sec-Fetch-Site`, sent to https and localhost) or `Origin` (RFC 6454 §7, sent with every POST). A client
that sends neither is no browser, and so carries nobody's cookies unasked.
"""

from urllib.parse import urlsplit


def is_same_origin(sec_fetch_site: str | None, origin: str | None, host: str) -> bool:
    """Judge by the headers of these names whether a page of our own made the request."""
    if sec_fetch_site is not None:
        return sec_fetch_site in ("same-origin", "none")  # none: typed into the address bar
    return origin is None or _netloc(origin) == host


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # `http://[`: no browser sends it
        return None
