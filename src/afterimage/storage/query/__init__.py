"""Queries: the checked value, its predicates in SQL, and the statements over a relation.

It imports `records`, `reports` and `engine`; `query.py` itself needs no engine.
The invariant: a query means the same in every storage.
"""
