"""Operating-system services: atomic files, locks, forks, garbage collection and prefetching.

It imports `errors` and nothing else of this package.
The invariant: no module here depends on the format or the content of records.
"""
