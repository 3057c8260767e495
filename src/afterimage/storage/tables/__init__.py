"""The tables of a database: layout, migrations, inserts, scans, checks and verification.

It imports `errors`, `models`, `records`, `reports`, `system`, `engine`, `query` and `jsonl` and
nothing else of this package.
The invariant: a table has the layout of the version that is stored for it.
"""
