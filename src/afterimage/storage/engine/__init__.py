"""The DuckDB engine: database files, connections, statements, and translation of its exceptions.

It imports `errors`, `reports` and `system` and nothing else of this package, and only this folder
imports the DuckDB driver.
The invariant: a database file is open only during a call.
"""
