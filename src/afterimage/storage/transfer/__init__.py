"""Export formats for other tools: Parquet files, JSONL for training tools, and files at URLs.

It imports `errors`, `records`, `query` and `system` and nothing else of this package.
The invariant: a file appears complete or not at all.
"""
