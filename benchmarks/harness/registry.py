"""Every measured system, and the environment it runs in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["BASE", "ENVIRONMENTS", "ROOT", "SYSTEMS", "Environment", "System", "by_name"]

ROOT = Path(__file__).resolve().parents[2]

# The tasks of every system with a record store, in this order.
_COMMON = ("save", "load", "filtered", "group")


@dataclass(frozen=True)
class Environment:
    """A virtual environment: its requirements, and whether it can import this project's source.

    The other systems use the record classes of `afterimage.storage.models`, which needs only
    pydantic. The published package has its own classes.
    """

    name: str
    requirements: tuple[str, ...]
    sees_source: bool = True


@dataclass(frozen=True)
class System:
    """A system: its module in `benchmarks.systems`, its environment and its tasks."""

    name: str
    title: str
    environment: str
    tasks: tuple[str, ...] = _COMMON
    in_table: bool = True


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        Environment("ours", ("-e", f"{ROOT}[cli,demo]")),
        Environment("published", ("afterimage==0.18.1",), sees_source=False),
        Environment("hf_datasets", ("datasets", "pydantic")),
        Environment("lance", ("pylance", "pydantic")),
        Environment("parquet", ("pyarrow", "duckdb", "pydantic")),
        Environment("duckdb", ("pyarrow", "duckdb", "pydantic")),
        Environment("polars", ("polars", "pydantic")),
        Environment("plot", ("matplotlib",), sees_source=False),
    )
}

BASE = "published"
"""The name of the system whose times are the base of all ratios."""

SYSTEMS = (
    System("published", "Published: afterimage 0.18.1, JSONLStorage", "published"),
    System(
        "ours_sql",
        "Ours: SQLStorage, declared keys",
        "ours",
        (*_COMMON, "import_jsonl", "export_parquet", "small_saves"),
    ),
    System("ours_sql_undeclared", "Ours: SQLStorage, nothing declared", "ours"),
    System("ours_jsonl", "Ours: JSONLStorage", "ours"),
    System("hf_datasets", "HF datasets", "hf_datasets"),
    System("lance_dataset", "Lance", "lance"),
    System("parquet_by_hand", "Parquet by hand (pyarrow + DuckDB)", "parquet"),
    System("duckdb_by_hand", "DuckDB by hand", "duckdb", (*_COMMON, "small_saves")),
    System("polars_ndjson", "Polars NDJSON", "polars"),
    System(
        "floor",
        "physical floor",
        "ours",
        ("insert_table", "build_models", "write_bytes", "write_parquet"),
        in_table=False,
    ),
)


def by_name(name: str) -> System:
    """The system of that name."""
    return next(system for system in SYSTEMS if system.name == name)
