"""Figures about all records: statistics, and values that several records have.

It imports `records`, `reports`, `engine`, and modules of `query` beside this folder, which do not
import it. The invariant: memory grows by some numbers for each record, and never by its texts.
"""
