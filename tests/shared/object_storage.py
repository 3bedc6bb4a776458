"""An S3-compatible server on loopback, and in front of it a proxy that counts requests and makes some fail."""

import http.client
import logging
import socket
import threading
import uuid
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
THROTTLED = (503, "SlowDown")
BROKEN = (500, "InternalError")
DENIED = (403, "AccessDenied")
DROPPED = "dropped"  # the connection closes without an answer


class ObjectStorage(ThreadingHTTPServer):
    """Forwards to the server what `fault(method, path)` has no answer to.

    Attributes:
        fault: what befalls a request: None, DROPPED, or a status and an S3 error code. May block, which delays.
        log: every request so far, failed ones included, as (method, path).
        conditions: whether If-Match and If-None-Match are honoured; some storage ignores them.
        turn: one conditional write at a time: moto looks and writes in two steps, where storage does it in one.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._moto.start()
        self.turn = threading.Lock()
        self.upstream = self._moto.get_host_and_port()
        super().__init__(("127.0.0.1", 0), _Handler)
        self._serve()
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.upstream[1]}", region_name="us-east-1")
        self.client.create_bucket(Bucket=BUCKET)
        self.reset()

    def reset(self) -> None:
        """A place of its own for a test, and nothing fails."""
        self.fault = lambda method, path: None
        self.log = []
        self.conditions = True
        self.prefix = f"tests/{uuid.uuid4().hex[:8]}"
        self.uri = self.uri_of(f"{BUCKET}/{self.prefix}")

    def uri_of(self, path: Path) -> str:
        """The URI of a bucket and prefix, by way of the proxy."""
        endpoint = f"127.0.0.1:{self.server_port}"
        return f"s3://{path}?scheme=http&endpoint_override={endpoint}&region=us-east-1"

    def objects(self) -> list[str]:
        """Keys under this test's prefix, less pyarrow's empty markers of folders."""
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/").get("Contents", [])
        keys = [entry["Key"].removeprefix(f"{self.prefix}/") for entry in listed]
        return [key for key in keys if key and not key.endswith("/")]

    def _serve(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def go_away(self) -> None:
        """As a server that is stopped: connections break, and new ones are refused."""
        self.fault = lambda method, path: DROPPED
        self.shutdown()
        self.socket.close()

    def come_back(self) -> None:
        """At the same address, with all that it held."""
        self.socket = socket.socket()
        self.server_bind()
        self.server_activate()
        self.fault = lambda method, path: None
        self._serve()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._moto.stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the other side was killed, which is what some tests do
            self.close_connection = True

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _answer(self) -> None:
        body = self._body()
        self.server.log.append((self.command, self.path))
        fault = self.server.fault(self.command, self.path)
        if fault == DROPPED:
            self.close_connection = True
            return
        if fault is not None:
            status, code = fault
            content = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            self._send(status, [("Content-Type", "application/xml")], content, len(content))
            return
        hop = ("connection", "content-length", "expect", "transfer-encoding")
        upstream = http.client.HTTPConnection(*self.server.upstream, timeout=120)
        if not self.server.conditions:
            hop += ("if-match", "if-none-match")
        kept = {name: value for name, value in self.headers.items() if name.lower() not in hop}
        with self.server.turn if self.command == "PUT" else nullcontext():
            upstream.request(self.command, self.path, body, {**kept, "Content-Length": str(len(body))})
            response = upstream.getresponse()
            content = response.read()
        length = response.headers.get("Content-Length", 0) if self.command == "HEAD" else len(content)
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in hop]
        upstream.close()
        self._send(response.status, headers, content, length)

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes, length: int) -> None:
        self.send_response_only(status)
        for name, value in [*headers, ("Content-Length", str(length))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _answer
