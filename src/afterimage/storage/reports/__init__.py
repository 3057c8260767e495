"""Reports of a call: skipped records, progress, statistics and verification results.

It imports `errors`, `records` and `system` and nothing else of this package.
The invariant: the size of a report does not depend on the number of faults.
"""
