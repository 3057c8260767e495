"""The server: a socket that listens before the link is printed, and a clean end by Ctrl-C."""

from __future__ import annotations

import secrets
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from afterimage.storage.errors import InvalidQueryError, shorten
from afterimage.storage.viewer.answers import Answers
from afterimage.storage.viewer.app import application

__all__ = ["Viewer"]


def _nothing() -> None:
    """Do nothing."""


class _Server(uvicorn.Server):
    """A server without signal handlers of its own, which it would have only once it runs."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    def end(*_: object) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, end) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@dataclass(frozen=True)
class Viewer:
    """A server over one store.

    Attributes:
        link: the link with the token, for a browser.
        token: the token.
        server: the server; `should_exit` ends it.
        listener: the socket.
    """

    link: str
    token: str
    server: uvicorn.Server
    listener: socket.socket

    @classmethod
    def over(cls, answers: Answers, title: str, host: str, port: int) -> Viewer:
        """Return a server that listens, and that `run` starts.

        Args:
            answers: what it answers.
            title: the heading of the page.
            host: an address or a name of this machine.
            port: the port; 0 for a free one.

        Raises:
            InvalidQueryError: the address or the port cannot be used.
        """
        listener = _listener(host, port)
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        app = application(answers, title, token, host, port)
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
            host, f"[{host}]" if ":" in host else host
        )
        link = f"http://{name}:{port}/?token={token}"
        return cls(link, token, _Server(config), listener)

    def run(self, ready: Callable[[], None] = _nothing) -> None:
        """Answer requests until Ctrl-C, SIGTERM, or until `server.should_exit` is set.

        Args:
            ready: called once signals end the server cleanly.
        """
        with _ended_by_signals(self.server):
            ready()
            self.server.run(sockets=[self.listener])

    def close(self) -> None:
        """Close the socket."""
        self.listener.close()


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name of a machine"
        raise InvalidQueryError(
            f"cannot listen on {shorten(host, 80)}, port {port}: {reason}. Choose another --host "
            "or --port."
        ) from None
    return listener
