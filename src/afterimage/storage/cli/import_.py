"""`import`: add the records of files to a store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import click

from afterimage import storage
from afterimage.storage.cli import options
from afterimage.storage.cli.progress import progress_bar
from afterimage.storage.cli.render import print_count, say
from afterimage.storage.cli.stores import (
    Opening,
    hidden,
    is_database,
    open_existing,
    open_or_make,
    path_of,
)
from afterimage.storage.errors import MissingFileError, StorageError, UnsupportedFileError
from afterimage.storage.jsonl.lines import parse, read_chunks
from afterimage.storage.models import Document
from afterimage.storage.reports.faults import OnError
from afterimage.storage.transfer.remote import is_url, name_of

__all__ = ["import_command"]


@click.command("import")
@click.argument("paths", metavar="SRC... DEST", nargs=-1, required=True, type=options.STORE)
@click.option(
    "--into",
    "dest",
    type=options.STORE,
    metavar="DEST",
    help="The destination. All arguments are then sources. Required if DEST is a JSONL file that "
    "exists.",
)
@options.kind("conversations", "documents", "records")
@options.source_format
@click.option(
    "--metadata-field",
    "metadata_fields",
    multiple=True,
    metavar="KEY",
    help="Add a separate column for this metadata key (DuckDB files only). Can be repeated.",
)
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Take each SRC as a store, and leave out the records that DEST has already. For DuckDB "
    "files, this is always so.",
)
@options.skip_corrupt
@options.opening
@options.as_json
def import_command(
    paths: Sequence[str],
    dest: str | None,
    kind: Any,
    source_format: str | None,
    fields: dict[str, str],
    group_by: str | None,
    order_by: str | None,
    opening: Opening,
    metadata_fields: Sequence[str],
    skip_existing: bool,  # noqa: FBT001  click passes it by name
    on_error: OnError,
    as_json: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Add the records of files to a store. DEST is created if it does not exist.

    SRC is a file of JSON lines or a JSON array, plain or compressed with gzip, zstd or xz, a pipe,
    or - for the standard input; or one Parquet file that ends in .parquet, or a folder of such
    files. A file can be a URL, such as s3://bucket/talks.jsonl.gz, if the packages of the extra
    `remote` are installed. Conversations can have the format of another tool; records of other
    models need --kind records.
    All records of all sources are saved, or none: an invalid line stops the import, unless
    --skip-corrupt is given.

    A SRC that is a DuckDB file or the URL of a database is a store: its records of all kinds are
    imported, without those that DEST has already. With --skip-existing, so is a JSONL file
    NAME.jsonl, with the documents in NAME.documents.jsonl if there are any.
    """
    names, dest = _told_apart(paths, dest)
    databases = _databases(names, skip_existing=skip_existing)
    if databases or skip_existing:
        of_lines = (source_format, fields, group_by, order_by)
        if kind != "conversations" or any(of_lines) or on_error != "raise":
            raise click.UsageError(
                "A store is imported as it is: --kind, --format, --field, --group-by, --order-by "
                "and --skip-corrupt are for files of lines."
            )
        if not skip_existing and len(databases) < len(names):
            raise click.UsageError(
                f"{hidden(databases[0])} is a store, and the other sources are files of lines. "
                "Import them separately, or take all of them as stores with --skip-existing."
            )
        _import_stores(names, dest, opening, metadata_fields, as_json=as_json)
        return
    if kind != "conversations" and (source_format or fields or group_by is not None):
        raise click.UsageError("--format, --field and --group-by are for conversations.")
    if group_by is not None and source_format:
        raise click.UsageError("--group-by is itself a format, and cannot be combined with one.")
    if order_by is not None and group_by is None:
        raise click.UsageError("--order-by requires --group-by.")
    if kind == "conversations":
        source_format = "rows" if group_by is not None else source_format or "auto"
    parquet = [name for name in names if _is_parquet(name)]
    if parquet and len(names) > 1:
        raise click.UsageError("A Parquet source must be the only one.")
    sources = [] if parquet else [_source(name) for name in names]
    store = open_or_make(dest, kind, opening, metadata_fields)
    title = Path(hidden(names[0])).name if len(names) == 1 else f"{len(names)} files"
    with progress_bar(f"import {title}") as progress:
        given: dict[str, Any] = {"kind": kind, "on_error": on_error, "progress": progress}
        given |= {"format": source_format, "fields": fields or None}
        given |= {"group_by": group_by, "order_by": order_by}
        try:
            if parquet:
                saved = store.import_parquet(parquet[0], **given)
            else:
                saved = store.import_jsonl(sources, **given)
        except UnsupportedFileError as error:
            raise _with_hint(error, sources, source_format) from None
    if source_format == "auto" and saved.format not in (None, "native"):
        say(f"{hidden(names[0])} was read as format {saved.format!r}.", err=True)
    named = "conversations" if kind == "records" else kind  # and records of other models
    print_count(
        saved, named, f"into {hidden(dest)}", hidden(dest), as_json=as_json, others=saved.others
    )


def _databases(names: Sequence[str], *, skip_existing: bool) -> list[str]:
    """Return the sources that are stores by themselves."""
    remote = [name for name in names if is_url(name)]
    if remote and skip_existing:
        raise click.UsageError(
            f"{hidden(remote[0])} is no store. Import it without --skip-existing, or download it."
        )
    others = [name for name in names if name not in remote]
    return [name for name in others if "://" in name or is_database(Path(name))]


def _import_stores(
    names: Sequence[str],
    dest: str,
    opening: Opening,
    metadata_fields: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Import the records of all kinds of stores, without those that the destination has."""
    wait = opening.lock_timeout
    sources = [_opened(name, wait) for name in names]
    store = open_or_make(dest, "conversations", opening, metadata_fields)
    if isinstance(store, storage.JSONLStorage):  # with a file of documents, too
        store = storage.open_storage(dest, create=True, lock_timeout=wait)
    saved = [store.import_store(source) for source in sources]
    where, others = f"into {hidden(dest)}", sum(each.others for each in saved)
    print_count(sum(saved), "records", where, hidden(dest), as_json=as_json, others=others)


def _opened(name: str, lock_timeout: float) -> storage.SQLStorage | storage.JSONLStorage:
    """Open a source that is a store."""
    store = open_existing(name, opening=Opening(lock_timeout=lock_timeout))
    if isinstance(store, storage.SQLStorage):
        return store
    return storage.open_storage(name, lock_timeout=lock_timeout)  # with its documents, too


def _with_hint(
    error: UnsupportedFileError,
    sources: Sequence[Path | str | IO[bytes]],
    source_format: str | None,
) -> UnsupportedFileError:
    """Return the error with what the file seems to be."""
    for source in sources:
        if source_format == "auto" and isinstance(source, Path) and _has_documents(source):
            return UnsupportedFileError(
                f"{source} seems to have documents. To import it as documents, use --kind "
                "documents. No record was saved."
            )
    if source_format == "auto" and "name it" in str(error):
        return UnsupportedFileError(f"{error} For records of other models, use --kind records.")
    return error


def _is_parquet(name: str) -> bool:
    path = Path(name_of(name) if is_url(name) else name)
    if name == "-" or not (is_url(name) or path.exists()):
        return False
    if not is_url(name) and path.is_dir():
        return any(path.rglob("*.parquet"))
    return path.suffix.lower() == ".parquet"


def _has_documents(path: Path) -> bool:
    """Return whether the first line of a file is a document. A pipe has no line left."""
    if not path.is_file():
        return False
    with suppress(StorageError):
        chunk = next(read_chunks(path), None)
        line = None if chunk is None else next(chunk.unread(), None)
        if chunk is not None and line is not None:
            record = parse(chunk, line)
            return "text" in record and record.keys() <= Document.model_fields.keys()
    return False


def _told_apart(paths: Sequence[str], dest: str | None) -> tuple[Sequence[str], str]:
    """Return the sources and the destination."""
    if dest is not None:
        return paths, dest
    *names, dest = paths
    if not names:
        raise click.UsageError(
            f"{hidden(dest)} is a source or the destination. Give both: SRC... DEST."
        )
    path = path_of(dest)
    if path is not None and path.is_file() and not is_database(path):
        raise click.UsageError(
            f"{dest} exists and is no DuckDB file: it can be a source or the destination. Give the "
            f"destination with --into, for example --into {dest}."
        )
    return names, dest


def _source(name: str) -> Path | str | IO[bytes]:
    if is_url(name):
        return name
    return sys.stdin.buffer if name == "-" else _existing(name)


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.exists():
        raise MissingFileError(f"{name} does not exist. Check the path.")
    if path.is_dir():
        raise UnsupportedFileError(f"{name} is a folder. Give a file of JSON lines.")
    return path
