"""The engine: DuckDB files, connections, statements and errors.

Only modules of this folder import the DuckDB driver; nothing here knows what a record is.
The invariant: a file is open during calls only.
"""
