"""Fuzz tests: damaged files and arbitrary input.

`pytest tests/fuzz` tests a hundred files and some queries. `python -m tests.fuzz.mutated_files`
tests any number of files and prints the results. HYPOTHESIS_PROFILE=thorough tests thousands of
queries.
"""
