"""``fedpref report``: one page about a run, a sweep, or a benchmark suite, from the files that it left."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from fedpref.errors import ConfigurationError, StorageError, did_you_mean

__all__ = ["report"]

_PAGE = "report.html"


def report(path: Path, out: Path | None = None, tier: str = "") -> Path:
    """Write the page and return its path.

    Args:
        path: a run directory, whose ``report.html`` is written anew; a folder of run directories; or the
            folder of a suite, such as ``bench/heterogeneity``.
        out: file to write, or a folder for ``report.html``; None writes it into ``path``.
        tier: of a suite; empty takes the one that ended last.

    Raises:
        ConfigurationError: ``tier`` is for no such suite, or no run has finished.
        StorageError: there is nothing to show, a file is damaged, or the disk is full.
    """
    from fedpref.report.sweep import write_sweep

    if out is not None and out.is_dir():
        out = out / _PAGE
    if out is not None and not out.parent.is_dir():
        raise StorageError(f"cannot write {out}: there is no folder {out.parent}")
    is_run = (path / "manifest.json").is_file()
    kept = {file.stem.removeprefix("outcome-"): file for file in path.glob("outcome-*.json")}
    if tier and (is_run or not kept):
        raise ConfigurationError(f"--tier {tier} is for the folder of a suite that fedpref bench has ended")
    if is_run:
        return _of_run(path, out)
    page = out or path / _PAGE
    if kept:
        return write_sweep(_outcome(kept, tier), page)
    _check_suites(path)
    from fedpref.cli.sweep import sweep_of

    return write_sweep(sweep_of(path), page)


def _of_run(path: Path, out: Path | None) -> Path:
    from fedpref.report.html import write_report
    from fedpref.report.storage import read_json, sha256_of, storage_errors, write_json

    page = write_report(path)
    manifest = read_json(path / "manifest.json")
    if page.name in manifest.get("sha256", {}):  # the run has ended: it signed the page that was there
        signed = manifest["sha256"] | {page.name: sha256_of(page)}
        write_json(path / "manifest.json", manifest | {"sha256": signed})
    if out is None or out.resolve() == page.resolve():
        return page
    with storage_errors(out):
        shutil.copyfile(page, out)
    return out


def _outcome(kept: dict[str, Path], tier: str) -> dict[str, Any]:
    """What was kept of a tier, or of the one that ended last."""
    from fedpref.report.storage import read_json
    from fedpref.report.sweep import FORMAT

    if tier and tier not in kept:
        raise ConfigurationError(
            f"--tier {tier} has not ended here.{did_you_mean(tier, kept)} There are {', '.join(sorted(kept))}"
        )
    outcomes = {name: read_json(file) for name, file in kept.items() if not tier or name == tier}
    for name, outcome in outcomes.items():
        if outcome.get("format") != FORMAT:
            raise StorageError(f"{kept[name]} is of another version of fedpref; run fedpref bench again")
    last = max(outcomes, key=lambda name: str(outcomes[name]["ended"]))
    if len(outcomes) > 1:
        others = ", ".join(sorted(name for name in outcomes if name != last))
        print(f"shown  tier {last}, which ended last; --tier shows {others}", file=sys.stderr)
    found: dict[str, Any] = outcomes[last]
    return found


def _check_suites(path: Path) -> None:
    """Say what to do where suites lie in the folder or a suite has not ended."""
    if below := sorted(file.parent.name for file in path.glob("*/outcome-*.json")):
        first, *_ = dict.fromkeys(below)
        raise ConfigurationError(
            f"{path} holds suites: {', '.join(dict.fromkeys(below))}; name one, such as {path / first}"
        )
    if any(path.glob("*/*/job.json")):
        raise ConfigurationError(f"{path} is of a suite that has not ended; go on with fedpref bench")
