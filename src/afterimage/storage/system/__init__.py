"""The system below: atomic files, locks, forks, the garbage collector, reading ahead.

It imports nothing of this package but the errors.
The invariant: nothing here knows what a record is.
"""
