"""Records: the declared fields, and a record as a model, as JSON and as Arrow.

Nothing here needs an engine. `schema.py` imports `FieldRef` from `query`, the one exception to
the rule that this folder imports only the errors and the models.
The invariant: whatever is saved is read back equal, and nothing is inferred from data.
"""
