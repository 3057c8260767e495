"""Records as HTML: for a notebook, and as a page of its own.

It imports `errors`, `models`, `chat` and `records`, and nothing that loads the engine. The
invariant: every text of a record is escaped, and nothing in a record is ever executed.
"""
