"""`view`: a page over a whole store, which a server on this machine answers.

It imports the modules of `cli/` that read options and open stores, `looking/`, and the public
classes; only the command loads starlette and uvicorn. The invariant: it only reads, holds no lock
between two requests, and answers nobody without the token.
"""
