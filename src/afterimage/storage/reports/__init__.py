"""What a call reports: skipped records, progress, statistics, verification.

`verification.py` imports `records`, `jsonl`, `query` and `system`, as it verifies lines itself; the
other modules import only the errors and each other.
The invariant: the size of a report does not depend on the number of faults.
"""
