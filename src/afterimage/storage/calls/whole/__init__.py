"""The public methods about a storage as a whole: connections to it, and the space that it takes.

It imports the modules beside this folder, which do not import it.
The invariant: no record is changed.
"""
