"""Operating-system services: files, locks, forks, signals, iterators, garbage collection.

It imports `errors` and nothing else of this package.
The invariant: no module here depends on the format or the content of records.
"""
