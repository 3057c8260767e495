"""A proxy before PostgreSQL that loses a connection at a message of the test's choice."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum
from typing import Any


class Loss(Enum):
    """When the connection is lost."""

    BEFORE = "the server never gets the message"
    DURING = "the server gets the message, and the connection is gone at once"
    AFTER = "the server has answered, and the answer is lost"


class Proxy:
    """Forwards connections to a server on loopback.

    Attributes:
        port: the port of the proxy.
        messages: number of messages of all clients so far.
        losses: number of connections that were lost.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._lost_at: tuple[int, Loss] | None = None
        self._lost_commit: Loss | None = None
        self.messages = 0
        self.losses = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, message: int, loss: Loss) -> None:
        """Lose the connection at the message of this number, from now and from 0."""
        with self._lock:
            self._lost_at = (self.messages + message, loss)

    def lose_commit(self, loss: Loss) -> None:
        """Lose the connection at the COMMIT of the next change of a lake."""
        with self._lock:
            self._lost_commit = loss

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                loses_answer = threading.Event()
                arguments = (client, server, loses_answer)
                threading.Thread(target=self._to_server, args=arguments, daemon=True).start()
                threading.Thread(target=self._to_client, args=arguments, daemon=True).start()

    def _to_server(self, client: Any, server: Any, loses_answer: threading.Event) -> None:
        try:
            is_first, is_changed = True, False
            while (message := _message(client, is_first=is_first)) is not None:
                is_first = is_first and message[4:8] == b"\x04\xd2\x16\x2f"  # asks for TLS
                loss = self._counted()
                is_changed |= b"INSERT INTO" in message and b"ducklake_snapshot" in message
                if is_changed and b"COMMIT" in message and self._lost_commit is not None:
                    loss, self._lost_commit = self._lost_commit, None
                    self.losses += 1
                if loss is Loss.BEFORE:
                    break
                if loss is Loss.AFTER:
                    loses_answer.set()
                server.sendall(message)
                if loss is Loss.DURING:
                    break
        except OSError:
            pass
        finally:
            if not loses_answer.is_set():
                _close(client, server)

    def _to_client(self, client: Any, server: Any, loses_answer: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(2**16):
                if loses_answer.is_set():
                    break
                client.sendall(data)
        _close(client, server)

    def _counted(self) -> Loss | None:
        with self._lock:
            number = self.messages
            self.messages += 1
            if self._lost_at is None or number < self._lost_at[0]:
                return None
            loss = self._lost_at[1]
            self._lost_at = None
            self.losses += 1
            return loss


def _message(client: Any, *, is_first: bool) -> bytes | None:
    """Return the next message of a client; the first one has no type."""
    head = _exactly(client, 4 if is_first else 5)
    if head is None:
        return None
    rest = _exactly(client, int.from_bytes(head[-4:], "big") - 4)
    return None if rest is None else head + rest


def _exactly(client: Any, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        if not part:
            return None
        data += part
    return data


def _close(*sockets: Any) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
