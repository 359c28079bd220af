"""The folder of a search: what is searched, and one file for each trial that has ended.

```
DIR/
  study.json           what is searched, on whom, with which versions
  trials/0001.json …   what came of each trial
  tune.json            the result
```

A file is written as a whole when its trial has ended, so a search that was killed goes on with the trials
that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedpref.cli.space import Point
from fedpref.errors import ConfigurationError, StorageError

__all__ = ["Trial", "opened", "read_trial", "write_trial"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of one point.

    Attributes:
        number: from 1 on.
        point: a value of each option.
        user_accuracy: mean over people, on validation pairs; None where the run failed.
        figures: all figures of the last evaluation.
        curve: round and user accuracy of each evaluation.
        wall_s: what it took; all else is equal wherever it is run.
        error: why the run failed; empty where it did not.
    """

    number: int
    point: Point
    user_accuracy: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    wall_s: float = 0.0
    error: str = ""


@contextmanager
def opened(folder: Path, study: Mapping[str, Any]) -> Iterator[None]:
    """The folder of a search, for this process alone.

    Args:
        folder: made if absent.
        study: what decides the numbers, and for the reader the ``command``; a search goes on only where
            all but the command is the same.

    Raises:
        ConfigurationError: the folder holds another search.
        StorageError: another process searches there, or it cannot be written.
    """
    from fedpref.report.lock import RunLock
    from fedpref.report.storage import read_json, storage_errors, to_json, write_json

    with storage_errors(folder):
        (folder / "trials").mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder)
    try:
        path, plain = folder / "study.json", json.loads(to_json(study))
        if path.exists():
            begun = read_json(path)
            known = begun if isinstance(begun, dict) else {}
            differs = [key for key in plain if key != "command" and known.get(key) != plain[key]]
            if differs:
                raise ConfigurationError(
                    f"--storage {folder} holds another search ({', '.join(differs)} differ): choose another "
                    "folder, or restore what differs and go on with the command in its study.json"
                )
        else:
            write_json(path, plain)
        yield
    finally:
        lock.release()


def read_trial(folder: Path, number: int, keys: Sequence[str]) -> Trial | None:
    """A trial that has ended, or None.

    Args:
        folder: of the search.
        number: of the trial.
        keys: of its point, in their order.

    Raises:
        StorageError: its file is damaged.
    """
    from fedpref.report.storage import read_json

    path = _file(folder, number)
    if not path.exists():
        return None
    try:
        record = read_json(path)
        point = {key: record["point"][key] for key in keys}
        curve = tuple((int(round_), float(value)) for round_, value in record["curve"])
        return Trial(**{**record, "point": point, "curve": curve})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is damaged: it is no trial; delete it to run that trial again") from error


def write_trial(folder: Path, trial: Trial) -> None:
    """Keep a trial that has ended.

    Raises:
        StorageError: the disk is full or not writable.
    """
    from fedpref.report.storage import write_json

    write_json(_file(folder, trial.number), vars(trial))


def _file(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:04d}.json"
