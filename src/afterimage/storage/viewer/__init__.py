"""The server of the command `view`: a page over a whole store, on the loopback interface.

It imports the storages and `looking`, and needs starlette and uvicorn, which are an extra. The
invariant: it only reads, holds no file open between requests, and answers nobody without the token.
"""
