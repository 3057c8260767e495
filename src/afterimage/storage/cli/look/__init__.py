"""The commands that answer a quick question about a store.

It imports the modules of `cli/` that read options, open stores and print, and no other command.
The invariant: a command here never changes or creates a store.
"""
