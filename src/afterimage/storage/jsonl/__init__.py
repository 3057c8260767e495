"""JSON lines: files of lines, checks, queries over lines, and interrupted saves.

Only `select.py`, `scan.py` and `batches.py` load the engine or Arrow; the storage imports those
three when a call needs them.
The invariant: a line is a record, and lines are split on line feeds only.
"""
