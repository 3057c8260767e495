"""`view`: a page over a whole store, in the browser."""

from __future__ import annotations

import logging
import sys
import webbrowser
from typing import Any

import click

from afterimage import storage
from afterimage.storage.cli import options
from afterimage.storage.cli.render import say
from afterimage.storage.cli.stores import Opening, call_of, open_existing, path_of
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.reports.faults import OnError

__all__ = ["view_command"]

_LOOPBACK = "127.0.0.1"


@click.command("view")
@click.argument("store", metavar="STORE", type=options.STORE)
@options.kind("conversations", "documents")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 is a free one.",
)
@click.option(
    "--host",
    type=options.NAME,
    default=_LOOPBACK,
    show_default=True,
    help="Address to listen on. With any other than the default, other machines can reach the "
    "page: whoever has the link can read the whole store, and the network sees what is read.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@options.skip_corrupt
@options.opening
def view_command(
    store: str,
    kind: str,
    port: int,
    host: str,
    opens: bool,  # noqa: FBT001  click passes it by name
    on_error: OnError,
    opening: Opening,
) -> None:
    """Show a store as a page in the browser: search, menus, sort and pages.

    It prints a link with a token and answers until Ctrl-C, which ends it with exit code 0. It only
    reads, and keeps no lock, so other programs can go on saving; reload the page to see new
    records. It needs starlette and uvicorn: pip install 'afterimage-storage[view]'.
    """
    try:
        from afterimage.storage.viewer.answers import Answers  # noqa: PLC0415  an extra
        from afterimage.storage.viewer.guard import is_loopback  # noqa: PLC0415
        from afterimage.storage.viewer.server import Viewer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("starlette", "uvicorn"):
            raise
        raise click.ClickException(
            f"the command `view` needs {missing}, which is not installed: "
            "pip install 'afterimage-storage[view]'"
        ) from None

    source = open_existing(store, kind, opening)
    call_of(source, "count", kind)(
        on_error=on_error
    )  # a store that cannot be read is an error now, not on the page
    others = ["conversations", "documents"] if isinstance(source, storage.SQLStorage) else []
    kinds = list(dict.fromkeys([kind, *others]))
    path = path_of(store)
    title = path.name if path is not None else kind
    viewer = Viewer.over(Answers(source, kinds, _condition, on_error), title, host, port)

    def ready() -> None:
        if not is_loopback(host):
            say(
                f"Warning: {host} is not the loopback interface. Whoever has the link can read the "
                "whole store, and the network sees what is read.",
                err=True,
            )
        say(viewer.link)
        sys.stdout.flush()
        say("Open this link in a browser on this machine. Ctrl-C ends the server.", err=True)
        if opens:
            webbrowser.open(viewer.link)

    log, terminal = logging.getLogger("afterimage.storage.viewer"), _Terminal()
    log.addHandler(terminal)
    try:
        viewer.run(ready)
    finally:
        log.removeHandler(terminal)
        viewer.close()


class _Terminal(logging.Handler):
    """Prints what the viewer logs: the page itself shows no paths."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), err=True)


def _condition(text: str) -> tuple[str, str, Any]:
    try:
        return options.parse_filter(text)
    except click.BadParameter as error:
        raise InvalidQueryError(error.message) from None
