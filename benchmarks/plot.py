"""Draws time against number of records: ``python -m benchmarks.plot RESULTS.json PICTURE.png``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.harness.registry import BASE, SYSTEMS

mpl.use("agg")

_PANELS = (
    ("save", "Save all, durably"),
    ("load", "Load all as models"),
    ("filtered", "Filtered, sorted page of 100"),
)
# Okabe and Ito's palette, which people with colour blindness can distinguish.
_OURS = {"ours_sql": "#0072b2", "ours_sql_undeclared": "#56b4e9", "ours_jsonl": "#009e73"}
_RIVALS = ("#d55e00", "#e69f00", "#cc79a7", "#999999", "#8c6d31")


def draw(result: dict[str, Any], picture: Path) -> None:
    """Draw one panel per task and one line per system, with both axes logarithmic."""
    rivals = iter(_RIVALS)
    figure, panels = plt.subplots(1, len(_PANELS), figsize=(13, 5.2), layout="constrained")
    for system in SYSTEMS:
        if not system.in_table:
            continue
        if system.name in _OURS:
            style = {"color": _OURS[system.name], "linewidth": 2.4, "zorder": 3}
        elif system.name == BASE:
            style = {"color": "black", "linewidth": 1.6, "linestyle": "--"}
        else:
            style = {"color": next(rivals), "linewidth": 1.2}
        for panel, (task, _) in zip(panels, _PANELS, strict=True):
            points = _points(result["growth"], system.name, task)
            if points:
                label = system.title
                panel.plot(*zip(*points, strict=True), marker="o", ms=4, label=label, **style)
    for panel, (_, title) in zip(panels, _PANELS, strict=True):
        panel.set(xscale="log", yscale="log", title=title, xlabel="conversations")
        panel.grid(which="major", color="#dddddd")
    panels[0].set_ylabel("seconds (median)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(picture, dpi=120)


def _points(growth: list[dict[str, Any]], system: str, task: str) -> list[tuple[int, float]]:
    found = []
    for size in growth:
        outcomes = size["results"].get(system, {}).get(task, {}).get("outcomes", [])
        if outcomes:
            found.append((size["records"], median(o["seconds"] for o in outcomes)))
    return found


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
