"""Describes this machine and the measured source."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.harness.registry import ROOT

__all__ = ["available_memory", "commit", "machine"]


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system and load average."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count(),
        "memory": _memory("MemTotal"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def available_memory() -> int | None:
    """Bytes of memory that are available without swapping; None if the system does not say."""
    return _memory("MemAvailable")


def commit() -> str | None:
    """The commit of the measured source, and whether there are uncommitted changes."""
    if shutil.which("git") is None:
        return None
    ask = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _memory(entry: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(entry)), None)
