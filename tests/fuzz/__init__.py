"""Damaged files and arbitrary input: what is promised then, tried on as many as there is time for.

`pytest tests/fuzz` tries a hundred files and some queries; `python -m tests.fuzz.mutated_files`
tries as many files as are wanted, and prints what came out; HYPOTHESIS_PROFILE=thorough tries
thousands of queries.
"""
