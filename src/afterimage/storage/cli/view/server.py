"""The server of the viewer: the page, and its answers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from afterimage.storage.cli.view import answers
from afterimage.storage.cli.view.answers import MOST_RECORDS, Asked
from afterimage.storage.cli.view.guard import Guard
from afterimage.storage.cli.view.page import page_of_server, policy
from afterimage.storage.errors import InvalidQueryError, LockTimeoutError, StorageError, shorten
from afterimage.storage.record_storage import RecordStorage

__all__ = ["viewer"]

_log = logging.getLogger("afterimage.storage")

_KINDS: Final = ("conversations", "documents")
_MOST_OFFSET: Final = 10**9
# A path in a message: the page does not show where files are.
_PATH: Final = re.compile(r"(?:[A-Za-z]:)?[\\/](?:[^\s\\/:'\"]+[\\/])+")


def viewer(
    stores: Mapping[str, RecordStorage],
    title: str,
    token: str,
    hosts: frozenset[str],
    folder: str | None,
) -> Guard:
    """Return the application.

    Args:
        stores: the store of each kind. Each answer opens its file, and closes it again.
        title: the title of the page.
        token: see `Guard`.
        hosts: see `Guard`.
        folder: the folder of the store, which no answer shows.
    """
    page = page_of_server(title)

    async def index(_: Request) -> Response:
        return HTMLResponse(page)

    def route(name: str, answer: Callable[[RecordStorage, Asked], dict[str, Any]]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(answered, request)

        def answered(request: Request) -> Response:
            try:
                asked = _asked(request)
                return JSONResponse(answer(stores[asked.kind], asked))
            except LockTimeoutError:
                return _error(503, "another process is writing to the store; try again")
            except InvalidQueryError as error:
                return _error(400, without_paths(error))
            except StorageError as error:
                return _error(500, without_paths(error))
            except Exception:  # noqa: BLE001  the page must not show what went wrong
                _log.exception("the viewer could not answer")
                return _error(500, "the program had an error; its output says which")

        return Route(f"/{name}", endpoint, methods=["GET"])

    def without_paths(error: BaseException) -> str:
        text = str(error) if folder is None else str(error).replace(folder, "")
        return shorten(_PATH.sub("", text), 300)

    routes = [
        Route("/", index, methods=["GET"]),
        route("records", answers.page),
        route("count", answers.count),
        route("facets", answers.facets),
        route("json", answers.json_at),
        route("hash", answers.hash_at),
        route("code", answers.code),
        route("fields", lambda store, asked: {"fields": answers.fields(store, asked.kind)}),
    ]
    return Guard(Starlette(routes=routes), token, hosts, policy())


def _asked(request: Request) -> Asked:
    """Return what a request asks for.

    Raises:
        InvalidQueryError: a parameter is not valid.
    """
    given = request.query_params
    kind = given.get("kind", "conversations")
    if kind not in _KINDS:
        raise InvalidQueryError(f"kind is {' or '.join(_KINDS)}")
    try:
        values = [json.loads(each) for each in given.getlist("value")]
        chosen = tuple((str(field), value) for field, value in values)
    except (TypeError, ValueError):
        raise InvalidQueryError("a value is not a JSON list of a field and a value") from None
    return Asked(
        kind,
        given.get("q", ""),
        chosen,
        given.get("order", ""),
        _number(given.get("offset", "0"), _MOST_OFFSET),
        _number(given.get("limit", "20"), MOST_RECORDS),
    )


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= most):
        raise InvalidQueryError(f"a number from 0 to {most:,} is required")
    return int(text)


def _error(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)
