"""Starts the measurements and evaluates them, with only Python's standard library.

The measured processes import only `dataset` from here, so that nothing else affects them.
"""
