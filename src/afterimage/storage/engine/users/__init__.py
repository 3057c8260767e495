"""What users give to the engine: SQL, values in it, regular expressions, functions in Python.

It imports `errors`, `system`, and modules of `engine` beside this folder, which do not import it.
The invariant: what the engine would refuse, or what would change a store, is refused before any
data is read.
"""
