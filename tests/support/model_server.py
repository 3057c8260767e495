"""A model behind the OpenAI API, small enough to read: it answers at once and remembers what.

Chat completions, in plain text or by a JSON schema, and embeddings. Texts hold what is hard to
keep: characters that other programs split lines at, NUL, and a number that makes each unique.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["ModelServer", "model_server"]


class ModelServer(ThreadingHTTPServer):
    """Listens on a free port of the loopback interface.

    Attributes:
        said: every text it gave, inside JSON too.
        thought: the reasoning that came with each text that was no JSON.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.said: list[str] = []
        self.thought: list[str] = []
        self._numbers = itertools.count()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def text(self) -> str:
        self.said.append(f'no. {next(self._numbers)}: é 😀 "\\ \u2028 \u0085 \x00 {{x}}\n\tend')
        return self.said[-1]

    def personas(self) -> str:
        names = [f"a pilot, no. {next(self._numbers)} \u2028 é" for _ in range(5)]
        self.said += [" ".join(name.split()) for name in names]  # as the generator keeps them
        return "\n".join(f"Persona {at}: {name}" for at, name in enumerate(names, 1))

    def by_schema(self, schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
        """A value that a JSON schema allows, its texts being texts of ours."""
        if "$ref" in schema:
            return self.by_schema(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        if "enum" in schema:
            return schema["enum"][0]
        if "anyOf" in schema:
            return self.by_schema(schema["anyOf"][0], definitions)
        match schema["type"]:
            case "object":
                properties = schema.get("properties", {})
                return {key: self.by_schema(of, definitions) for key, of in properties.items()}
            case "array":
                return [self.by_schema(schema["items"], definitions) for _ in range(2)]
            case "string":
                return self.text()
            case "number":
                return 0.9
            case "integer":
                return 2**53 - 1
            case "boolean":
                return True
        raise AssertionError(f"no value for {schema}")

    def complete(self, asked: dict[str, Any]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant"}
        schema = asked.get("response_format", {}).get("json_schema", {}).get("schema")
        if schema is not None:
            found = self.by_schema(schema, schema.get("$defs", {}))
            message["content"] = json.dumps(found)
        elif "Persona N:" in asked["messages"][-1]["content"]:
            message["content"] = self.personas()
        else:
            message["content"] = self.text()
            message["reasoning_content"] = f"why {self.text()}"
            self.thought.append(message["reasoning_content"])
        return {
            "id": "chat",
            "object": "chat.completion",
            "created": 0,
            "model": asked["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/chat/completions":
            self._answer(self.server.complete(asked))
        elif self.path == "/v1/embeddings":
            texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
            vectors = [
                {"object": "embedding", "index": at, "embedding": [1.0, 0.0]}
                for at in range(len(texts))
            ]
            usage = {"prompt_tokens": 1, "total_tokens": 1}
            self._answer({"object": "list", "data": vectors, "model": "m", "usage": usage})
        else:
            self.send_error(404)

    def _answer(self, found: dict[str, Any]) -> None:
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing: a test that fails says what is wrong."""


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """A server that answers for as long as the block runs."""
    with ModelServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
