"""A download arrives whole or not at all, and goes on where it ended."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedpref.data.originals.fetch import fetch, size_bytes
from fedpref.errors import StorageError

CONTENT = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves ``CONTENT`` at every path but /gone; can ignore ranges, or end early."""

    ranges = True
    ends_after: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    def url(self, path: str = "/file") -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self._head(start)
        self.wfile.write(CONTENT[start : self.server.ends_after])

    def do_HEAD(self) -> None:
        self._head(0)

    def _head(self, start: int) -> None:
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def test_a_file_arrives_whole_and_its_size_is_known_before(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"

    assert size_bytes(server.url()) == len(CONTENT)
    fetch(server.url(), path)

    assert path.read_bytes() == CONTENT
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_a_broken_download_leaves_no_file_and_the_next_call_fetches_only_the_rest(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    server.ends_after = 4000
    with pytest.raises(StorageError, match=r"run the command again"):
        fetch(server.url(), path)
    assert not path.exists()

    server.ends_after = None
    fetch(server.url(), path)

    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=4000-"]


def test_a_server_that_cannot_go_on_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"something else")

    fetch(server.url(), tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_as_long_as_the_file_is_not_trusted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * len(CONTENT))

    fetch(server.url(), tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-", None]


def test_a_missing_file_and_an_absent_server_are_named(server: Server, tmp_path: Path) -> None:
    for ask in (lambda url: fetch(url, tmp_path / "file"), size_bytes):
        with pytest.raises(StorageError, match=r"/gone: cannot .*404"):
            ask(server.url("/gone"))
    url = server.url()
    server.shutdown()
    server.server_close()
    with pytest.raises(StorageError, match=r"127\.0\.0\.1.*refused"):
        size_bytes(url)
