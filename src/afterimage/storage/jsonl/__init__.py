"""JSON lines: files of lines, checks, queries over lines, and interrupted saves.

It imports `query` and `engine` only where a call needs them.
The invariant: a line is a record, and lines are split on line feeds only.
"""
