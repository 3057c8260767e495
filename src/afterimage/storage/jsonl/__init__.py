"""JSONL files: reading, checking, querying and appending lines, and recovery of interrupted saves.

It imports `errors`, `models`, `records`, `reports`, `system`, `engine` and `query` and nothing else
of this package, and only `select.py` and `batches.py` load Arrow or the engine on import.
The invariant: a line is a record, and lines are split on line feeds only.
"""
