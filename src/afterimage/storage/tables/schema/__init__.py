"""The tables of a database as SQL: their columns, names and views, and how they are created.

It imports `engine`, `query`, `records` and `arrow`; the modules of `tables` beside this folder
import it, and it imports none of them. The invariant: every column follows from the declared
fields.
"""
