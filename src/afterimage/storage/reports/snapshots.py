"""`Snapshot`: one version of a lake."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """One version of a lake.

    Attributes:
        version: its number; each commit makes the next one.
        time: when it was made.
        message: what made it: "save" or "edit"; empty for commits of other programs.
        changes: what it changed, as the JSON text of DuckLake.
    """

    version: int
    time: dt.datetime
    message: str
    changes: str
