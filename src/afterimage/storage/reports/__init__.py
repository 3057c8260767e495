"""What a call reports: skipped records, progress, statistics, verification.

It imports `records`, and lines where they are verified.
The invariant: the size of a report does not depend on the number of faults.
"""
