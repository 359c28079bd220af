"""Fetch the originals of a published set, trust them or not, and convert them to our format.

Trust: revisions are pinned, but a checksum can be pinned only by whoever has seen the files. Where none
is, the user compares and accepts the checksum of what was fetched; it is kept beside the files, and from
then on they must not change. Nothing that nobody has accepted is converted.
"""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import filelock

from fedpref.data.originals.fetch import fetch, size_bytes
from fedpref.data.originals.places import default_folder, file_name
from fedpref.data.originals.publications import Publication, publication
from fedpref.data.originals.rows import Figures, Row, as_file
from fedpref.data.published import WrongLayout
from fedpref.errors import ConfigurationError, StorageError

__all__ = ["checksums", "get"]

ACCEPTED, ADDRESSES = "SHA256SUMS", "ADDRESSES"


def get(
    name: str, to: Path | None = None, accept: str | None = None, say: Callable[[str], None] = print
) -> Path:
    """Fetch and convert a set, unless it is there.

    Args:
        name: ``llmfao``, ``ukpconvarg``, ``mtbench`` or ``polis``.
        to: folder for ``NAME.jsonl.gz``, ``NAME.ATTRIBUTION.md`` and the originals; None: the cache.
        accept: checksum of the originals, which the user has compared.
        say: told what happens, a line each.

    Returns:
        The file of rows.

    Raises:
        ConfigurationError: no such set, originals that nobody has accepted, or laid out otherwise.
        StorageError: no network, a damaged file, or a folder that cannot be written.
    """
    source = publication(name)
    folder = default_folder() if to is None else to.expanduser()
    path, originals = folder / file_name(name), folder / f"{name}.originals"
    command = f"fedpref data get {name}" + ("" if to is None else f" --to {to}")
    if path.exists():
        say(f"there already: {path}; remove it to make it anew")
        return path
    try:
        originals.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(originals / ".lock", timeout=0):
            _fetch_missing(source, originals, command, say)
            found = checksums(originals, list(source.files))
            digest = _trusted(source, originals, command, accept, found)
            rows = _converted(name, source, originals)
            _write(originals / ACCEPTED, found.encode())  # what cannot be read was accepted in error
            content = as_file(rows)
            figures = Figures.of(rows)
            attribution = _attribution(name, source, figures, content, digest)
            _write(folder / f"{name}.ATTRIBUTION.md", attribution.encode())
            _write(path, content)
    except filelock.Timeout:
        raise StorageError(f"{originals}: another `fedpref data get` is at work there; wait for it") from None
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{folder}: {error}; choose a writable folder with --to") from error
    say(f"{path}: {figures.rows} rows of {figures.annotators} people, {figures.text_pairs} pairs")
    return path


def checksums(folder: Path, names: Sequence[str]) -> str:
    """One line a file, sorted by name, as ``sha256sum`` writes and checks them.

    Raises:
        OSError: a file cannot be read.
    """
    lines = []
    for name in sorted(names):
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def _fetch_missing(source: Publication, originals: Path, command: str, say: Callable[[str], None]) -> None:
    missing = {file: url for file, url in source.files.items() if not (originals / file).exists()}
    if not missing:
        return
    listing = "".join(f"{file}  {url}\n" for file, url in source.files.items())
    _write(originals / ADDRESSES, listing.encode())
    sizes: list[int | None] = []
    file = ""
    try:
        for file in missing:
            sizes.append(size_bytes(missing[file]))
        unknown = ", and files that state no size" if None in sizes else ""
        say(f"{len(missing)} files, {sum(size or 0 for size in sizes) / 1e6:.1f} MB{unknown}, to {originals}")
        for number, file in enumerate(missing, 1):
            fetch(missing[file], originals / file)
            say(f"  {number}/{len(missing)} {file}")
    except StorageError as error:
        raise StorageError(
            f"{error}. Without a network: fetch it by other means and put it at {originals / file}, likewise "
            f"the others of {originals / ADDRESSES}; then run `{command}` again"
        ) from error


def _trusted(source: Publication, originals: Path, command: str, accept: str | None, found: str) -> str:
    """The checksum of all checksums, if it is pinned or accepted, now or before."""
    digest = hashlib.sha256(found.encode()).hexdigest()
    kept = originals / ACCEPTED
    if kept.exists() and (before := kept.read_text(encoding="utf-8")) != found:
        differing = set(found.splitlines()) ^ set(before.splitlines())
        changed = sorted({line.partition("  ")[2] for line in differing})
        raise StorageError(
            f"{originals}: not what was accepted: {', '.join(changed)}; remove that file to fetch it again, "
            "or the whole folder to begin anew"
        )
    if source.digest not in (None, digest):
        raise StorageError(
            f"{originals}: SHA-256 of the checksums is {digest}, not {source.digest}; remove the folder and "
            "fetch again"
        )
    if accept not in (None, digest):
        raise ConfigurationError(f"--accept {accept}: the files in {originals} have {digest}")
    if source.digest is None and accept is None and not kept.exists():
        raise ConfigurationError(
            f"{originals}: the revision is pinned, but the SHA-256 of these files is not known to fedpref. "
            f"Look at them or compare them with a copy you trust, then run `{command} --accept {digest}`, "
            "the SHA-256 of all their checksums"
        )
    return digest


def _converted(name: str, source: Publication, originals: Path) -> list[Row]:
    try:
        rows = source.read(originals)
    except (WrongLayout, ValueError, csv.Error) as error:  # ValueError: no number, no UTF-8, no JSON
        raise ConfigurationError(
            f"{name}: {error}; the files in {originals} are not those of the pinned revision"
        ) from error
    found, least = asdict(Figures.of(rows)), asdict(source.at_least)
    short = [
        f"{found[what]} {what}, at least {least[what]} expected"
        for what in least
        if found[what] < least[what]
    ]
    if short:
        raise ConfigurationError(
            f"{name}: {'; '.join(short)}; the files in {originals} are not those of the pinned revision"
        )
    return rows


def _attribution(name: str, source: Publication, figures: Figures, content: bytes, digest: str) -> str:
    return (
        f"# {name}\n\n"
        f"* Origin: {source.origin}\n"
        f"* Licence: {source.licence}\n"
        f"* Cite: {source.citation}\n"
        f"* Changes made by `fedpref data get {name}`: {source.changes}.\n"
        f"* {file_name(name)}: {figures.rows} rows of {figures.annotators} annotators, {figures.text_pairs} "
        f"text pairs, {figures.domains} domains; SHA-256 {hashlib.sha256(content).hexdigest()}\n"
        f"* Originals: SHA-256 of their checksums {digest}\n\n"
        "Keep this file beside the data. Pseudonyms replace ids that are public in the source, "
        "which is no anonymity.\n"
    )


def _write(path: Path, content: bytes) -> None:
    """The whole new file, or the old one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
