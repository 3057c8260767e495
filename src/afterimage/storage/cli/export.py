"""`export`: write records of a store to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from afterimage import storage
from afterimage.storage.cli import options
from afterimage.storage.cli.look.pages import export_page, is_page, refuse_options
from afterimage.storage.cli.progress import progress_bar
from afterimage.storage.cli.render import print_count, say
from afterimage.storage.cli.stores import (
    Opening,
    explain_fields,
    explain_nothing,
    explain_offset,
    hidden,
    open_existing,
)
from afterimage.storage.errors import counted
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.reports.exports import ExportCount
from afterimage.storage.transfer.remote import name_of, refuse_folder

__all__ = ["export_command"]


@click.command("export")
@click.argument("store", metavar="STORE", type=options.STORE)
@click.argument("out", metavar="OUT", type=options.FILE_OR_URL)
@options.kind("conversations", "documents", "records")
@options.filters
@options.order_and_slice(None)
@options.columns
@options.partition_by
@options.training_format
@options.split
@click.option(
    "--hub",
    is_flag=True,
    help="Write OUT as a folder for the Hugging Face Hub: Parquet files and a dataset card. The "
    "format is messages unless --format is given.",
)
@click.option(
    "--license", "license_", metavar="ID", help="License of the dataset card, such as cc-by-4.0."
)
@click.option("--title", metavar="TEXT", help="Title of the dataset card; the name of OUT.")
@options.choice
@options.skip_corrupt
@options.opening
@options.as_json
def export_command(
    store: str,
    out: Path | str,
    kind: Any,
    columns: list[str] | None,
    partition_by: list[str] | None,
    line_format: Any,
    system_prompt: str | None,
    reasoning: Any,
    lossy: bool,  # noqa: FBT001  click passes it by name
    trim: bool,  # noqa: FBT001
    split: dict[str, float] | None,
    split_by: str | None,
    hub: bool,  # noqa: FBT001
    license_: str | None,
    title: str | None,
    choice: dict[str, Any],
    opening: Opening,
    as_json: bool,  # noqa: FBT001  click passes it by name
    **query: Any,
) -> None:
    """Write records of a store to a file.

    OUT ends in .parquet, .jsonl, .jsonl.gz, .jsonl.zst or .html. With --partition-by it is a new
    folder. With --split it is a new folder of JSONL files, or of Parquet files if it ends in
    .parquet. With --hub it is a new folder, or an unchanged earlier one, that load_dataset reads
    without options. OUT appears only when it is complete; an existing file is replaced at that
    time. JSONL files contain the records as they were saved, and Parquet files contain their
    columns. With --format, both contain rows for training tools. An .html file is a page for a
    browser, of 500 records unless --limit is given.

    A file can also be a URL, such as s3://bucket/talks.jsonl.gz. Credentials come from the
    environment. It needs the packages of the extra `remote`.
    """
    is_split = split is not None
    shown = hidden(str(out))
    name = name_of(out) if isinstance(out, str) else out.name
    if is_page(name) and not (partition_by or hub):
        refuse_options(line_format, columns, split, split_by, system_prompt, reasoning, lossy, trim)
        source = open_existing(store, kind, opening)
        count = export_page(source, out, kind, query, choice)
        print_count(count, kind, f"to {shown}", shown, as_json=as_json)
        return
    lines = (is_split and not _is_parquet(name)) or name.lower().endswith(
        (".jsonl", ".jsonl.gz", ".jsonl.zst")
    )
    training = {"format": line_format, "system_prompt": system_prompt, "reasoning": reasoning}
    training |= {"lossy": lossy, "trim": trim}
    if hub or is_split or partition_by:
        refuse_folder(out)
    if hub:
        _check_hub(kind, partition_by)
        training["format"] = line_format or "messages"
    else:
        _check_no_card(license_, title)
        _check_target(name, shown, training, columns, partition_by, lines=lines)
    if training["format"] or not lines:
        training["columns"] = columns
    source = open_existing(store, kind, opening)
    arguments = {"kind": kind, "split": split, "split_by": split_by, **choice, **query}
    written: ExportCount
    with progress_bar(f"export {name}") as progress:
        # JSONLStorage reports the share done, so it needs no total.
        if progress and not isinstance(source, storage.JSONLStorage):
            progress.expect(_record_count(source, kind, query, choice))
        arguments |= {**training, "progress": progress}
        if hub:
            del arguments["kind"]
            written = source.export_hub(out, **arguments, license=license_, title=title)
        elif lines:
            written = source.export_jsonl(out, **arguments)
        else:
            written = source.export_parquet(out, **arguments, partition_by=partition_by)
    print_count(written, kind, f"to {shown}", shown, as_json=as_json)
    _explain_omitted(written, kind)
    if as_json:
        return
    _explain_parts(written)
    if written:
        keys = [field for field, _ in query["order_by"]]
        explain_fields(source, kind, [*(columns or ()), *(partition_by or ()), *keys])
    elif query["offset"]:
        explain_offset(source, kind, query["filters"], query["offset"])
    elif query["limit"] != 0:
        explain_nothing(source, kind, query["filters"])


def _check_hub(kind: str, partition_by: list[str] | None) -> None:
    """Refuse options that a folder for the Hub does not have."""
    if kind != "conversations":
        raise click.UsageError("--hub is for conversations only.")
    if partition_by:
        raise click.UsageError("--hub cannot be combined with --partition-by.")


def _check_target(
    name: str,
    shown: str,
    training: dict[str, Any],
    columns: list[str] | None,
    partition_by: list[str] | None,
    *,
    lines: bool,
) -> None:
    """Refuse options that the target does not have."""
    has_format = training["format"] is not None
    if lines and (partition_by or (columns and not has_format)):
        raise click.UsageError(
            "--columns and --partition-by are for Parquet; JSONL files contain whole records. With "
            "--format, --columns adds fields to each line."
        )
    if not has_format and (training["system_prompt"] is not None or any(training.values())):
        raise click.UsageError("--system-prompt, --reasoning, --lossy and --trim require --format.")
    if has_format and partition_by:
        raise click.UsageError("--partition-by cannot be combined with --format.")
    if not lines and not partition_by and not _is_parquet(name):
        raise click.BadParameter(
            f"{shown} must end in .parquet, .jsonl, .jsonl.gz, .jsonl.zst or .html."
        )


def _is_parquet(name: str) -> bool:
    return Path(name).suffix.lower() == ".parquet"


def _check_no_card(license_: str | None, title: str | None) -> None:
    if license_ is not None or title is not None:
        raise click.UsageError("--license and --title require --hub.")


def _explain_parts(written: ExportCount) -> None:
    """Print the number of rows of each part of a split, and its share."""
    if written and written.parts:
        parts = (f"{name} {n:,} ({n / written:.1%})" for name, n in written.parts.items())
        say(", ".join(parts), err=True)


def _explain_omitted(written: ExportCount, kind: str) -> None:
    """Print how many conversations were left out and why, and what the others do not have."""
    if written.omitted:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in written.reasons.items())
        say(f"{written.omitted.count:,} left out: {reasons}.\n{written.omitted}", err=True)
    if written.dropped:
        parts = (f"{name} of {counted(n, kind)}" for name, n in written.dropped.items())
        say(f"Without {', '.join(parts)}.", err=True)


def _record_count(
    store: RecordStorage, kind: str, query: dict[str, Any], choice: dict[str, Any]
) -> int:
    count = {
        "conversations": store.count_conversations,
        "documents": store.count_documents,
        "records": store.count_records,
    }
    left = max(0, count[kind](query["filters"], **_without_order(choice)) - (query["offset"] or 0))
    return left if query["limit"] is None else min(left, query["limit"])


def _without_order(choice: dict[str, Any]) -> dict[str, Any]:
    """Return what a count needs: without a sample, it has no seed."""
    rest = {**choice, "shuffle_seed": None}
    return rest if choice["sample"] is not None else {**rest, "seed": None}
