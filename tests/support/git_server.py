"""A smart Git server over https on loopback, as a Git host is one: `git http-backend` behind Python's own server."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
from typing import TYPE_CHECKING

from loopback import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Give a self-signed certificate for localhost, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ed25519",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def make_authority(folder: Path) -> tuple[Path, tuple[Path, Path]]:
    """Give the certificate of an authority, as a company has one, and one for localhost that it vouches for, with its key."""
    authority, its_key = folder / "company.pem", folder / "company.key"
    certificate, key = folder / "localhost.pem", folder / "localhost.key"
    (folder / "names").write_text("subjectAltName=DNS:localhost\n", encoding="ascii")
    new = ["-newkey", "ed25519", "-nodes"]
    named = ["-extfile", folder / "names", "-out", certificate]
    for command in (
        ["req", "-x509", *new, "-days", "2", "-subj", "/CN=Company", "-keyout", its_key, "-out", authority],
        ["req", *new, "-subj", "/CN=localhost", "-keyout", key, "-out", folder / "request"],
        [
            "x509",
            "-req",
            "-in",
            folder / "request",
            "-CA",
            authority,
            "-CAkey",
            its_key,
            "-days",
            "2",
            *named,
        ],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return authority, (certificate, key)


@contextlib.contextmanager
def serve_git(
    repositories: Path,
    certificate: Path,
    key: Path,
    *,
    asked: Callable[[bytes], bytes] = lambda body: body,
    status: int = 0,
) -> Iterator[str]:
    """Serve the repositories below a folder; gives the base URL.

    Args:
        asked: what Git is to think that it was asked.
        status: answer everything by this one instead.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self._body())

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, body: bytes) -> None:
            if status:
                self.send_response(status)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = asked(body)
            path, _, query = self.path.partition("?")
            environment = dict(os.environ) | {
                "GIT_PROJECT_ROOT": str(repositories),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "CONTENT_LENGTH": str(len(body)),
                "REMOTE_ADDR": "127.0.0.1",
            }
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=environment, check=False, capture_output=True
            )  # a refusal is status 1, and its answer says why
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler, (certificate, key)) as url:
        yield url
