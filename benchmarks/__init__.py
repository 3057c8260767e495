"""Benchmarks of the storages and of other systems: ``python3 benchmarks/run.py``."""
