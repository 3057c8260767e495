"""Records: the declared fields, and a record as a model, as JSON and as Arrow.

Nothing here knows a query or an engine, but one module that binds a path for the schema.
The invariant: whatever is saved is read back equal, and nothing is inferred from data.
"""
