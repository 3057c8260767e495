"""Who gets an answer: requests with the token, to a name of this server, from its own page.

The token is in the link that the command prints. The first answer puts it into a cookie, which
pages of other sites can neither read nor send. A page of another site whose name leads to this
machine is refused by the name in `Host`.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard", "is_loopback"]

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NO_CONTENT: Final = "default-src 'none'; frame-ancestors 'none'"


class Guard:
    """The application, for those who may use it.

    Args:
        app: the application.
        token: what a request must have.
        host: the address that the server listens on.
        port: its port.
    """

    def __init__(self, app: ASGIApp, token: str, host: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._host = host
        self._port = port
        # Cookies of a machine are sent to all of its ports.
        self._cookie = f"afterimage_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Content-Security-Policy", _NO_CONTENT)
            await send(message)

        headers = Headers(scope=scope)
        app: ASGIApp = self._app
        given = QueryParams(scope.get("query_string", b"")).get("token")
        if not self._is_own_name(headers):
            app = PlainTextResponse("This server has another name.", 403)
        elif not self._is_own_page(headers):
            app = PlainTextResponse("Pages of other sites get no answer.", 403)
        elif scope["path"] == "/" and given is not None and self._is_token(given):
            app = RedirectResponse("/", 303)
            app.set_cookie(self._cookie, given, httponly=True, samesite="strict")
        elif not self._has_token(headers):
            app = PlainTextResponse("Open the link that `afterimage-storage view` printed.", 403)
        elif scope["method"] not in ("GET", "HEAD"):
            app = PlainTextResponse("This server only reads.", 405, {"Allow": "GET, HEAD"})
        await app(scope, receive, with_headers)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token)

    def _has_token(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(given.strip()):
            return True
        cookies = cookie_parser(headers.get("cookie", ""))
        return self._is_token(cookies.get(self._cookie, ""))

    def _is_own_name(self, headers: Headers) -> bool:
        given = headers.getlist("host")
        if len(given) != 1:
            return False
        try:
            parts = urlsplit(f"//{given[0]}")
            port, name = parts.port or 80, (parts.hostname or "").lower()
        except ValueError:
            return False
        if port != self._port or parts.username is not None or parts.path:
            return False
        if is_loopback(self._host):
            return name in {"localhost", "127.0.0.1", "::1", self._host.lower()}
        return name in self._names() or _is_address(name)

    def _names(self) -> Iterable[str]:
        return {name.lower() for name in (self._host, "localhost", socket.gethostname())}

    def _is_own_page(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        return origin is None or origin.lower() == f"http://{headers['host'].lower()}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
