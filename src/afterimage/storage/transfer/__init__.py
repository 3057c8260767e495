"""Formats for other tools: Parquet, and lines that trainers read.

It imports `records`, `query` and `system`.
The invariant: a file appears whole or not at all.
"""
