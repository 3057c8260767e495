"""What the storages cost, measured beside what else there is: ``python3 benchmarks/run.py``."""
