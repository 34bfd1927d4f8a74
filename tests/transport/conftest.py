"""A raw HTTP/1.1 server on a socket, which counts and misbehaves as told."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest


@dataclass
class Asked:
    """One request as it came over the socket."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


#: answers a request on its socket; False closes the connection
Answerer = Callable[[Asked, "Wire"], bool | None]


class Wire:
    """A connection whose bytes are counted where the server sees them."""

    def __init__(self, sock: socket.socket, server: RawServer) -> None:
        self._sock = sock
        self._server = server
        self._buffer = b""

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def answer(
        self, body: bytes = b"{}", status: int = 200, kind: str = "application/json", **more: str
    ) -> None:
        head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        head += [f"{name.replace('_', '-')}: {text}" for name, text in more.items()]
        self.send("\r\n".join([*head, "", ""]).encode() + body)

    def answer_json(self, value: object, status: int = 200) -> None:
        self.answer(json.dumps(value).encode(), status)

    def start_events(self) -> None:
        self.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _more(self) -> None:
        data = self._sock.recv(65_536)
        if not data:
            raise EOFError
        self._buffer += data

    def read_request(self) -> Asked:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        method, path, _ = first.split(" ")
        return Asked(method, path, headers, body)


class RawServer:
    def __init__(self, answer: Answerer, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.sent = 0
        self.received = 0
        self.connections = 0
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._run(self._accept)

    def _run(self, job: Callable[[], None]) -> None:
        thread = threading.Thread(target=job, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with self._lock:
                    self.connections += 1
                    self._open.add(sock)
                self._run(lambda sock=sock: self._serve(sock))

    def _serve(self, sock: socket.socket) -> None:
        relay = self._relay(sock)
        with relay, contextlib.suppress(OSError, EOFError):
            inner = self._tls.wrap_socket(relay, server_side=True) if self._tls else relay
            with inner:
                wire = Wire(inner, self)
                while True:
                    asked = wire.read_request()
                    self.asked.append(asked)
                    if self.answer(asked, wire) is False:
                        break

    def _relay(self, sock: socket.socket) -> socket.socket:
        """The other end of a pipe to ``sock`` that counts every byte between them."""
        near, far = socket.socketpair()

        def copy(source: socket.socket, sink: socket.socket, name: str) -> None:
            with contextlib.suppress(OSError):
                while data := source.recv(65_536):
                    setattr(self, name, getattr(self, name) + len(data))
                    sink.sendall(data)
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def both() -> None:
            with sock, far:
                inward = threading.Thread(target=copy, args=(sock, far, "received"), daemon=True)
                inward.start()
                copy(far, sock, "sent")
                inward.join()

        self._run(both)
        return near

    def cut(self) -> None:
        """End every connection, as a killed process would."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        self.stop_listening()
        self.cut()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Starts servers; ``serve(answer)`` with ``answer(asked, wire)``."""
    servers: list[RawServer] = []

    def start(answer: Answerer, tls: ssl.SSLContext | None = None) -> RawServer:
        servers.append(RawServer(answer, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
