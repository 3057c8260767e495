"""Queries: the checked `Query`, its predicates as SQL, and the statements over a relation.

It imports `errors`, `models`, `records`, `reports` and `engine` and nothing else of this package.
The invariant: a query has the same result in every storage.
"""
