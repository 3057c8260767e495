"""The commands that delete, change, compare and compact, one module per command.

They ask on a terminal before anything is deleted. The invariant: with `--dry-run` a command changes
nothing, and prints the number that it would print without.
"""
