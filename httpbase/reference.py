"""The pages that explain a service, for machines and for people. Everything is served from here: no CDN."""

from importlib.resources import files
from typing import Any, Final

import yaml
from flask import Blueprint, Response, json
from markupsafe import Markup
from werkzeug.exceptions import NotFound

from schemas.problems import KINDS

_OURS: Final = files("httpbase") / "assets"
_SWAGGER_UI: Final = files("swagger_ui") / "static"
_ASSETS: Final = {
    "start.js": (_OURS, "text/javascript"),
    "swagger-ui-bundle.js": (_SWAGGER_UI, "text/javascript"),
    "swagger-ui.css": (_SWAGGER_UI, "text/css"),
    "favicon-32x32.png": (_SWAGGER_UI, "image/png"),
}
# Swagger UI sets style attributes; its scripts and its requests stay on this host.
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
}
_PROBLEM_PAGE: Final = Markup(
    '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    "<h1>{title}</h1><p>HTTP status {status}, <code>error_type</code> <code>{error_type}</code>.</p><p>{remedy}</p>"
)


def blueprint(openapi: dict[str, Any], asyncapi: dict[str, Any] | None = None) -> Blueprint:
    """`/`, the descriptions as JSON and YAML, `/docs` and `/problems/…` of the service that is described.

    Args:
        openapi: Its HTTP.
        asyncapi: Its sockets, if it has any.
    """
    routes = Blueprint("reference", __name__)
    links = {"documentation": "/docs", "description": "/openapi.json", "health": "/health/ready"}
    _add_description(routes, "openapi", openapi)
    if asyncapi is not None:
        _add_description(routes, "asyncapi", asyncapi)
        links["sockets"] = "/asyncapi.json"

    @routes.get("/")
    def index() -> dict[str, str]:
        return {"service": openapi["info"]["title"], **links}

    @routes.get("/favicon.ico")
    def favicon() -> Response:
        return asset("favicon-32x32.png")  # browsers ask for it whatever a page says

    routes.add_url_rule("/docs", view_func=page)
    routes.add_url_rule("/docs/<name>", view_func=asset)
    routes.add_url_rule("/problems/<slug>", view_func=problem_page)
    return routes


def _add_description(routes: Blueprint, name: str, document: dict[str, Any]) -> None:
    as_json = json.dumps(document)
    as_yaml = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    routes.add_url_rule(f"/{name}.json", f"{name}_json", lambda: Response(as_json, content_type="application/json"))
    # RFC 9512
    routes.add_url_rule(f"/{name}.yaml", f"{name}_yaml", lambda: Response(as_yaml, content_type="application/yaml"))


def page() -> Response:
    """Shows the description with Swagger UI."""
    return Response((_OURS / "docs.html").read_text(), headers=_PAGE_HEADERS, content_type="text/html")


def asset(name: str) -> Response:
    """A file that the page needs, and no other file."""
    if name not in _ASSETS:
        raise NotFound
    folder, content_type = _ASSETS[name]
    headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return Response((folder / name).read_bytes(), headers=headers, content_type=content_type)


def problem_page(slug: str) -> Response:
    """Explains a kind of problem: what the `type` member of an error body points at."""
    for status, kind in KINDS.items():
        if kind.slug == slug:
            text = _PROBLEM_PAGE.format(title=kind.title, status=status, error_type=kind.error_type, remedy=kind.remedy)
            return Response(text, headers=_PAGE_HEADERS, content_type="text/html; charset=utf-8")
    raise NotFound
