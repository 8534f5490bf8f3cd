"""What every answer tells the browser to allow."""

from urllib.parse import urlsplit

from flask import Response, request


def content_security_policy(runner_url: str) -> str:
    """Scripts, styles and pictures of our own; sockets to the runner; nothing inline, nothing framed (CSP 3).

    `blob:` is how the page shows the bytes that a result carries.
    """
    runner = urlsplit(runner_url)
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob:",
            f"connect-src 'self' {runner.scheme}://{runner.netloc}",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def secure(response: Response, policy: str) -> Response:
    """Add the security headers; whatever is not a static file is kept by no cache."""
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    # Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response
