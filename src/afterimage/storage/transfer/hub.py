"""A folder for the Hugging Face Hub: Parquet files by split, and a dataset card.

The front matter of the card follows the metadata of dataset cards of the Hub
(https://huggingface.co/docs/hub/datasets-cards): `load_dataset(folder)` finds splits and types in
it. The invariant: a folder appears when it is complete, and replaces only an earlier one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from afterimage.storage.errors import InvalidQueryError, StorageError
from afterimage.storage.system.atomic_files import replaced, temporary_path
from afterimage.storage.system.targets import check_path, real_target

__all__ = ["DATA", "card", "hub_folder", "rename_shards"]

DATA: Final = "data"
"""The folder of the Parquet files, inside the folder."""

_MARK: Final = "<!-- Written by afterimage-storage; a new export replaces this folder. -->"
_SCALARS: Final = {pa.string(): "string", pa.bool_(): "bool", pa.int64(): "int64"} | {
    pa.float64(): "float64"
}


@contextmanager
def hub_folder(path: Path) -> Iterator[Path]:
    """Provide a new folder that is renamed to `path` at the end, or deleted after an error.

    Raises:
        InvalidQueryError: `path` exists and is not a folder of an earlier export.
        MissingFileError: the folder of `path` does not exist.
        StorageError: the folder cannot be written.
    """
    check_path(path)
    try:
        is_old = path.exists() and not (path.is_dir() and not any(path.iterdir()))
        if is_old and not _is_export(path):
            raise InvalidQueryError(
                f"{path} exists and was not written by an export to the Hub. Give a new folder, or "
                "remove it first."
            )
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}") from error
    if not is_old:
        with replaced(path) as fresh:
            (fresh / DATA).mkdir(parents=True)
            yield fresh
        return
    target = real_target(path)
    former = temporary_path(target, "old")
    fresh = temporary_path(target, "tmp")
    try:
        with replaced(fresh) as writing:
            (writing / DATA).mkdir(parents=True)
            yield writing
        target.rename(former)
        try:
            fresh.rename(target)
        except OSError:
            former.rename(target)
            raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(former, ignore_errors=True)


def _is_export(path: Path) -> bool:
    try:
        return _MARK in (path / "README.md").read_text("utf-8")
    except (OSError, ValueError):
        return False


def rename_shards(folder: Path) -> dict[str, list[Path]]:
    """Name the files of each split as the Hub does; return them by split.

    Args:
        folder: has the files `<split>.parquet` or `<split>-00000-of-00001.parquet`.
    """
    splits: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.parquet")):
        name, found, _ = file.stem.partition("-00000-of-")
        shard = file if found else file.rename(folder / f"{name}-00000-of-00001.parquet")
        splits.setdefault(name, []).append(shard)
    return splits


def card(
    splits: Mapping[str, list[Path]],
    *,
    title: str,
    license_name: str | None,
    description: str,
) -> str:
    """Return the text of the card, `README.md`.

    Args:
        splits: the Parquet files of each split.
        title: the heading.
        license_name: an identifier of a license of the Hub, such as "cc-by-4.0".
        description: Markdown that follows the heading.
    """
    names = list(splits)
    sizes = {name: _sizes(files) for name, files in splits.items()}
    download = sum(file.stat().st_size for files in splits.values() for file in files)
    front: list[str] = ["---"]
    if license_name is not None:
        front.append(f"license: {json.dumps(license_name)}")
    front += ["configs:", "- config_name: default", "  data_files:"]
    for name in names:
        front += [f"  - split: {json.dumps(name)}", f"    path: {json.dumps(f'{DATA}/{name}-*')}"]
    front.append("dataset_info:")
    schema = pq.read_schema(splits[names[0]][0]) if names else pa.schema([])
    features = [_feature(field.name, field.type) for field in schema]
    if None not in features:
        front.append(f"  features: {json.dumps(features, ensure_ascii=False)}")
    front.append("  splits:")
    for name, (rows, size) in sizes.items():
        front += [f"  - name: {json.dumps(name)}", f"    num_bytes: {size}"]
        front.append(f"    num_examples: {rows}")
    front += [
        f"  download_size: {download}",
        f"  dataset_size: {sum(size for _, size in sizes.values())}",
        "---",
    ]
    table = ["| split | rows | MB |", "|---|---:|---:|"]
    for name, files in splits.items():
        size = sum(file.stat().st_size for file in files)
        table.append(f"| {name} | {sizes[name][0]:,} | {size / 1e6:.1f} |")
    parts = ["\n".join(front), _MARK, f"# {title}", description, "## Splits", "\n".join(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sizes(files: list[Path]) -> tuple[int, int]:
    """Return the number of rows of files, and their size without compression in bytes."""
    footers = [pq.read_metadata(file) for file in files]
    groups = [each.row_group(index) for each in footers for index in range(each.num_row_groups)]
    return sum(each.num_rows for each in footers), sum(group.total_byte_size for group in groups)


def _feature(name: str | None, kind: pa.DataType) -> dict[str, Any] | None:
    """Return the declaration of a column in the form of a card; None if it has none."""
    named: dict[str, Any] = {} if name is None else {"name": name}
    if kind in _SCALARS:
        return {**named, "dtype": _SCALARS[kind]}
    if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType):
        return {**named, "dtype": "json"} if kind.extension_name == "arrow.json" else None
    if pa.types.is_struct(kind):
        fields = _features(kind)
        return None if fields is None else {**named, "struct": fields}
    if pa.types.is_list(kind):
        if pa.types.is_struct(kind.value_type):
            fields = _features(kind.value_type)
            return None if fields is None else {**named, "list": fields}
        item = _feature(None, kind.value_type)
        return None if item is None or "dtype" not in item else {**named, "list": item["dtype"]}
    return None


def _features(struct: pa.DataType) -> list[dict[str, Any]] | None:
    found = [_feature(child.name, child.type) for child in struct]
    fields = [each for each in found if each is not None]
    return fields if len(fields) == len(found) else None
