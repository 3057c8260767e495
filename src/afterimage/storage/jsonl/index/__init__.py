"""What a storage remembers of a JSONL file between reads, so that a query need not parse it again.

Modules here import those of `jsonl/` that read lines, and nothing of the engine. The invariant: an
outline answers only for the file that it was made of, and only if every line of it can be loaded.
"""
