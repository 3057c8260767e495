"""Copies of a database: to read while others go on writing, and without unused space.

It imports `errors`, `system`, and modules of `engine` beside this folder, but not the catalogs.
The invariant: a copy is complete, and of one state, or an error is raised and nothing is left.
"""
