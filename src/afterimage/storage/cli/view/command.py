"""`view`: look at a whole store in the browser."""

from __future__ import annotations

import os
import secrets
import socket
import webbrowser
from contextlib import suppress

import click

from afterimage.storage.cli import options, render
from afterimage.storage.cli.stores import Opening, hidden, open_existing, path_of
from afterimage.storage.errors import InvalidQueryError, shorten

__all__ = ["view_command"]


@click.command("view")
@click.argument("store", metavar="STORE", type=options.STORE)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Port of the server; 0, the default, takes a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    type=options.NAME,
    help="Address of the server. Others than 127.0.0.1 and ::1 let other machines ask: everybody "
    "who has the link, and everybody who sees the traffic, which is not encrypted.",
)
@click.option("--open/--no-open", "opens", help="Whether to open the page in a browser.")
@options.opening
def view_command(store: str, port: int, host: str, opens: bool, opening: Opening) -> None:  # noqa: FBT001
    """Look at a store in the browser.

    The link that is printed has a secret, without which the server answers nothing. The page has a
    search in the query language, menus for metadata, sorting and paging. It only reads, and others
    can write to the store meanwhile; reload the page for new records. Ctrl-C ends the server, with
    exit code 0.
    """
    try:
        import uvicorn  # noqa: PLC0415  the extra `view`

        from afterimage.storage.cli.view.guard import is_loopback  # noqa: PLC0415  as above
        from afterimage.storage.cli.view.server import viewer  # noqa: PLC0415  as above
    except ModuleNotFoundError as error:
        raise InvalidQueryError(
            f"{error.name} is not installed: pip install 'afterimage-storage[view]'"
        ) from None
    stores = {kind: open_existing(store, kind, opening) for kind in ("conversations", "documents")}
    path = path_of(store)
    folder = None if path is None else f"{path.parent}{os.sep}"
    bound = _bound(host, port)
    with bound:
        name = f"[{host}]" if ":" in host else host
        number = bound.getsockname()[1]
        hosts = frozenset[str]()
        if is_loopback(host):
            hosts = frozenset(f"{each}:{number}" for each in (name, "localhost", "127.0.0.1"))
        token = secrets.token_urlsafe(24)
        app = viewer(stores, hidden(store), token, hosts, folder)
        link = f"http://{name}:{number}/?token={token}"
        render.say(link)
        render.say("Ctrl-C ends it.", err=True)
        if opens:
            webbrowser.open(link)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, lifespan="off"
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        InvalidQueryError: the address or the port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen()  # the link works from now on
    except (OSError, UnicodeError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or shorten(error, 80)
        raise InvalidQueryError(
            f"the server cannot listen on {shorten(host, 80)}, port {port}: {reason}. Give another "
            "--port or --host."
        ) from None
    return bound
