"""Tables of a database: their layout, migrations, scans, checks and verification.

It may import every folder except `transfer` and `cli`.
The invariant: a table is as the version beside its name says.
"""
