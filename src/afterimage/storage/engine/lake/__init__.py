"""Lakes: DuckLake databases, with a catalog in PostgreSQL or in a file, and with data in Parquet.

Many processes on many machines can write to a lake at the same time. Nothing outside this folder
imports it, except for a URL that names a lake.
"""
