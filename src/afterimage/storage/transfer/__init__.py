"""Export formats for other tools: Parquet files, and JSONL formats for training tools.

It imports `errors`, `records`, `query` and `system` and nothing else of this package.
The invariant: a file appears complete or not at all.
"""
