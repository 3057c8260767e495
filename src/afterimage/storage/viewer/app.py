"""The application: its paths, and errors as short texts without paths of this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from afterimage.storage.errors import (
    CorruptRecordError,
    InvalidQueryError,
    LockTimeoutError,
    StorageError,
    shorten,
)
from afterimage.storage.looking.page import served_page
from afterimage.storage.viewer.answers import Answers, Asked
from afterimage.storage.viewer.guard import Guard

__all__ = ["application"]

_log: Final = logging.getLogger(__name__)


def application(answers: Answers, title: str, token: str, host: str, port: int) -> ASGIApp:
    """Return the application over a store.

    Args:
        answers: what it answers.
        title: the heading of the page.
        token: what a request must have.
        host: the address that the server listens on.
        port: its port.
    """
    page, policy = served_page(title, answers.kinds)

    def home(request: Request) -> Response:
        del request
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    def icon(request: Request) -> Response:
        del request
        return Response(status_code=204)

    routes = [Route("/", home), Route("/favicon.ico", icon)]
    routes += [
        Route(f"/api/{call.__name__}", _answered(call))
        for call in (answers.records, answers.calls, answers.count, answers.facets, answers.hash)
    ]
    return Guard(Starlette(routes=routes), token, host, port)


def _answered(call: Callable[[Asked], dict[str, Any]]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        given = request.query_params
        try:
            found = call(Asked(dict(given), given.getlist("facet")))
            return JSONResponse(found)
        except InvalidQueryError as error:
            return _fault(400, shorten(error, 500))
        except LockTimeoutError:
            return _fault(503, "Another process uses the store. Reload the page in a moment.")
        except CorruptRecordError as error:
            _log.warning("%s", error)
            return _fault(500, "A record is corrupt. The terminal says which; `verify` names all.")
        except StorageError as error:
            _log.warning("%s", error)
            return _fault(500, "The store cannot be read. The terminal says why.")
        except Exception:  # noqa: BLE001  the answer must not have a traceback
            _log.exception("an error of the viewer")
            return _fault(500, "The viewer has failed. The terminal says why.")

    return answer


def _fault(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
