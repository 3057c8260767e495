"""An object store that speaks the protocol of S3, on loopback, of the tests' own."""

from __future__ import annotations

import urllib.request
from functools import cache
from importlib.util import find_spec
from typing import Any

__all__ = ["KEY", "REGION", "SECRET_KEY", "ObjectStore", "missing_for_objects", "shared_objects"]

KEY = "access-key-of-tests"
SECRET_KEY = "s3cret/key+of-tests"
REGION = "us-east-1"


@cache
def missing_for_objects() -> str | None:
    """Return why object stores cannot be tested here, if they cannot."""
    missing = [name for name in ("moto", "flask", "flask_cors") if find_spec(name) is None]
    return f"{missing[0]} is in the extra `libraries`" if missing else None


class ObjectStore:
    """A running server.

    Attributes:
        address: its host and port.
        environment: the variables with which `s3fs` and DuckDB find it.
    """

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server: Any = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.address = f"{host}:{port}"
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "DUCKDB_S3_ENDPOINT": self.address,
            "DUCKDB_S3_USE_SSL": "false",
        }

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"http://{self.address}/{name}", method="PUT")
        with urllib.request.urlopen(request):
            pass

    def remove(self, bucket: str, folder: str) -> None:
        """Remove all objects of a folder."""
        import boto3

        resource: Any = boto3.resource("s3", endpoint_url=f"http://{self.address}")
        resource.Bucket(bucket).objects.filter(Prefix=f"{folder}/").delete()

    def stop(self) -> None:
        self._server.stop()


@cache
def shared_objects() -> ObjectStore:
    """Return a server that all tests of this process use, and that ends with it."""
    import atexit

    store = ObjectStore()
    atexit.register(store.stop)
    return store
