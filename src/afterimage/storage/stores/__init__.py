"""Open the storage that a file needs.

It imports the storages and nothing that imports it but the command line.
The invariant: nothing is created before the first save.
"""
