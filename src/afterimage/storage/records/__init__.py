"""Records: the declared fields, and conversions between models, JSON objects and Arrow batches.

It imports `errors` and `models` and nothing else of this package.
The invariant: every saved record is read back equal, and no type is inferred from data.
"""
