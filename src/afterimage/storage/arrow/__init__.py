"""Arrow: the declared schema, and records as record batches and back.

It imports `errors`, `models`, `chat` and `records` and nothing else of this package.
The invariant: every record comes back from its batch equal, and no type is inferred from data.
"""
