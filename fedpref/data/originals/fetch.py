"""Download a file: under a temporary name, going on where an earlier attempt ended."""

from __future__ import annotations

import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from pathlib import Path

from fedpref.errors import StorageError

__all__ = ["fetch", "size_bytes"]

TIMEOUT_S = 60
_NO_LONGER_RANGE = 416


def size_bytes(url: str) -> int | None:
    """The size that the server states, or None if it states none.

    Raises:
        StorageError: it cannot be reached or has no such file.
    """
    request = urllib.request.Request(url, method="HEAD", headers={"Accept-Encoding": "identity"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return _whole_bytes(answer.headers)
    except (OSError, http.client.HTTPException) as error:
        raise StorageError(f"{url}: cannot be reached ({_reason(error)})") from error


def fetch(url: str, path: Path) -> None:
    """Write the file at ``url`` to ``path``; nothing lies there until it is whole.

    What was received of it stays in ``path.part`` if the connection breaks, and the next call goes on from
    there if the server can; otherwise it begins anew.

    Raises:
        StorageError: it cannot be reached, it ended early, or ``path`` cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = _receive(url, part)
        got = part.stat().st_size
        if whole is not None and got != whole:
            if got > whole:  # what was there is no beginning of this file
                part.unlink()
            raise StorageError(f"{url}: {got} of {whole} bytes received; run the command again")
        os.replace(part, path)
    except StorageError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise StorageError(f"{url}: cannot be fetched to {path} ({_reason(error)})") from error


def _receive(url: str, part: Path) -> int | None:
    """Append to ``part`` what it lacks; the size of the whole file, where the server states it."""
    there = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={there}-"} if there else {})}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != _NO_LONGER_RANGE:
            raise
        error.close()
        part.unlink()  # it is as long as the file or longer; nobody knows whether it is the file
        return _receive(url, part)
    with answer:
        goes_on = answer.status == http.HTTPStatus.PARTIAL_CONTENT and _start(answer.headers) == there
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT and not goes_on:
            part.unlink()
            return _receive(url, part)
        with part.open("ab" if goes_on else "wb") as file:
            shutil.copyfileobj(answer, file)
        return _whole_bytes(answer.headers)


def _start(headers: Message) -> int | None:
    """First byte of the piece, of ``Content-Range: bytes 5-9/10``."""
    first = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None


def _whole_bytes(headers: Message | Mapping[str, str]) -> int | None:
    size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length") or ""
    return int(size) if size.isdecimal() else None


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {reason}"
    return str(reason or error) or type(error).__name__
