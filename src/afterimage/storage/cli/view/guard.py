"""Who may ask the viewer: only a page that has the token, and that this server has sent.

A browser sends requests of any page to servers of this machine. The name of the host stops pages
whose name leads here (https://owasp.org/www-community/attacks/DNS_Rebinding), the origin stops
other pages, and the token stops other users of the machine.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

__all__ = ["Guard", "is_loopback"]

_Scope = MutableMapping[str, Any]
_App = Callable[[_Scope, Any, Any], Awaitable[None]]

_HEADERS: Final = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is that of this machine only."""
    return host in ("localhost", "::1") or host.startswith("127.")


class Guard:
    """Middleware that refuses requests without the token, or from elsewhere.

    Args:
        app: answers the requests that are let through.
        token: the secret of this start of the server.
        hosts: the values of the header Host that are answered; empty for any.
        policy: the content security policy.
    """

    def __init__(self, app: _App, token: str, hosts: frozenset[str], policy: str) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        self._headers = {**_HEADERS, "content-security-policy": policy}

    async def __call__(self, scope: _Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                raw = [(name.encode(), value.encode()) for name, value in self._headers.items()]
                message["headers"] = [*message["headers"], *raw]
            await send(message)

        answer = self._refusal(Request(scope))
        await (answer or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self._hosts and host not in self._hosts:
            return _refused(421, "this server has another name")
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return _refused(403, "a page of another origin cannot ask this server")
        site = request.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and request.url.path != "/":
            return _refused(403, "a page of another origin cannot ask this server")
        if request.method not in ("GET", "HEAD"):
            return _refused(405, "this server only reads")
        given = request.query_params.get("token")
        if request.url.path == "/" and given is not None and self._is_token(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self._cookie(request), self._token, httponly=True, samesite="strict")
            return answer
        if not self._is_token(request.cookies.get(self._cookie(request), "")):
            return _refused(401, "open the link that the program has printed")
        return None

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())

    @staticmethod
    def _cookie(request: Request) -> str:
        # Cookies are shared by all ports of a host.
        return f"afterimage-{request.url.port or 80}"


def _refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status)
