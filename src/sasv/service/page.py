"""The page at ``/``: static files, which load nothing from other hosts."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

from sasv.service.problems import Problem

router = APIRouter(include_in_schema=False)

STATIC = files("sasv.service") / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"


@router.get("/")
async def index() -> Response:
    """Return the page."""
    return _file(INDEX)


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Return a file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    # Only names of existing files are accepted, so that no path can lead elsewhere.
    known = {one.name: one for one in STATIC.iterdir()}
    suffix = name[name.rfind(".") :]
    if name not in known or suffix not in TYPES:
        raise Problem(404, "not_found", "this file does not exist")
    headers = {"Cache-Control": "no-cache"}
    return Response(known[name].read_bytes(), headers=headers, media_type=TYPES[suffix])
