"""What writes JSONL files: the lines of a save, and edits, which write the whole file again.

It may import the modules of `jsonl/` above it. The invariant: the new file of an edit appears
whole, and every line that is not edited keeps its bytes.
"""
