"""Edits of JSONL files: records are removed or changed by writing the whole file again.

It may import the modules of `jsonl/` above it. The invariant: the new file appears whole, and every
line that is not edited keeps its bytes.
"""
