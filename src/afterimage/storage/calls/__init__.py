"""The public methods of a storage, as one class for each kind of work.

`record_storage.py` joins the classes. Each of them has `Calls` as its base, which has the backend
and what they share; a class uses another one only if that is its base, too. The invariant: a call
checks its arguments before it reads or changes anything.
"""
