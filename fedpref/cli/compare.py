"""``fedpref compare``: finished runs side by side, those that differ in their seed alone in one row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpref.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from fedpref.evaluation.records import Record
    from fedpref.report.runs import Run

__all__ = [
    "as_text",
    "compare_runs",
    "names_of",
    "others_asked_noted",
    "overrides_of",
    "record_of",
    "rows_of",
    "runs_at",
    "settings_of",
    "versions_noted",
]

_NOT_SETTINGS = ("seed", "out")
_UNTOLD = ("seed", "out", "name")  # overrides that do not tell rows apart
_NO_OVERRIDES = "defaults"
_SHOWN = 5  # folders of runs that a message names


def compare_runs(paths: Sequence[Path], metrics: Sequence[str] = ()) -> dict[str, Any]:
    """The comparison as plain data, rows in the order of the runs.

    Args:
        paths: run directories, or folders of some; at least one.
        metrics: to compare besides the usual ones.

    Raises:
        ConfigurationError: a run has not finished; rows differ in seeds or data; a metric does not exist.
        StorageError: a path is no run directory and has none below it, or a file in it is damaged.
    """
    from fedpref.evaluation.compare import METRICS, tables

    runs = [run for path in paths for run in runs_at(path)]
    for run in runs:
        _check_finished(run)
    grouped = rows_of(runs)
    rows = dict(zip(names_of(grouped), grouped, strict=True))
    records = [record_of(run, name) for name, of_row in rows.items() for run in of_row]
    (table,) = tables(records, tuple(dict.fromkeys((*METRICS, *metrics))))
    for metric in metrics:
        if not any(metric in row.cells for row in table.rows):
            raise ConfigurationError(f"--metric {metric}: not all runs of any row have it; leave it out")
    found = table.as_json()
    del found["data"]  # all runs are on the same
    for row in found["rows"]:
        row["runs"] = [str(run.path) for run in sorted(rows[row["name"]], key=_seed)]
    found["notes"] += [*others_asked_noted(records), *versions_noted(runs)]
    return found


def as_text(comparison: Mapping[str, Any], format_: str, metrics: Sequence[str], by_seed: bool) -> str:
    """A comparison as a table, as Markdown or as LaTeX; user accuracy, if no metric is chosen.

    Args:
        comparison: of ``compare_runs``.
        format_: one of ``fedpref.report.compare.FORMATS``, or json.
        metrics: to show with intervals and differences.
        by_seed: also one line a seed.
    """
    from fedpref.report.compare import FORMATS
    from fedpref.report.storage import to_json

    if format_ == "json":
        return to_json(comparison, indent=2)
    return FORMATS[format_](comparison, tuple(dict.fromkeys(metrics)) or ("user_accuracy",), by_seed)


def runs_at(path: Path) -> list[Run]:
    """The run in a directory, or all runs in a folder of them, such as ``runs/NAME``, by the names of theirs.

    Raises:
        StorageError: there is none, or a file of one is damaged.
    """
    from fedpref.report.runs import read_run

    if (path / "manifest.json").is_file():
        return [read_run(path)]
    folders = sorted(manifest.parent for manifest in path.glob("*/manifest.json"))
    below = [
        folder for folder in folders if not folder.is_symlink()
    ]  # the link to the latest is no other run
    if not below:
        raise StorageError(
            f"{path} is not a run directory, and there is none right below it{_runs_further_below(path)}"
        )
    return [read_run(folder) for folder in below]


def _runs_further_below(path: Path) -> str:
    """Names the folders with runs, as deep as those of suites lie: one of them was meant."""
    manifests = [*path.glob("*/*/manifest.json"), *path.glob("*/*/*/manifest.json")]
    runs = [file.parent for file in manifests if (file.parent / "config.yaml").is_file()]
    folders = sorted({str(run.parent) for run in runs if not run.is_symlink()})
    if not folders:
        return ""
    more = f" and {len(folders) - _SHOWN} more" if len(folders) > _SHOWN else ""
    return f"; there are some in {', '.join(folders[:_SHOWN])}{more}"


def record_of(run: Run, name: str, data: str = "") -> Record:
    """What a finished run brings to a comparison.

    Args:
        run: with its users and summary.
        name: of its row.
        data: of the data set, where there are several.
    """
    from fedpref.evaluation.records import Person, Record

    people = {
        str(user["name"]): Person(float(user["accuracy"]), int(user["num_pairs"]), user.get("group"))
        for user in run.users
    }
    numbers = {
        key: float(value)
        for key, value in run.summary.items()
        if _is_number(value) and not key.endswith(("_low", "_high"))  # intervals are drawn here
    }
    return Record(name, data, _seed(run), people, numbers, str(run.summary.get("held_out_sha256", "")))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_finished(run: Run) -> None:
    state = run.status.get("state", "unknown")
    if state == "finished" and run.users and run.summary:
        return
    if state == "finished":
        raise ConfigurationError(f"{run.path} has no result: users.json or summary.json is absent or empty")
    mend = {
        "running": "wait for it",
        "failed": f"it says: {run.status.get('error') or 'nothing'}",
    }.get(state, f"go on with: fedpref resume {run.path}")
    raise ConfigurationError(f"{run.path} has not finished, it is {state}; leave it out, or {mend}")


# ------------------------------------------------------------------------------------------------- rows


def rows_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seed only, together. A seed that a row has already begins another row."""
    rows: list[tuple[Mapping[str, Any], list[Run]]] = []
    for run in runs:
        settings = settings_of(run)
        for known, of_row in rows:
            if known == settings and _seed(run) not in map(_seed, of_row):
                of_row.append(run)
                break
        else:
            rows.append((settings, [run]))
    return [of_row for _, of_row in rows]


def names_of(rows: Sequence[Sequence[Run]], words: Sequence[Sequence[str]] | None = None) -> Iterator[str]:
    """The name of the runs where it tells all rows apart; else the overrides that not all rows have.

    Args:
        rows: of ``rows_of``, at least one.
        words: the overrides of each row that may be told; None tells all of ``overrides_of``.
    """
    names = [str(of_row[0].manifest.get("name", of_row[0].path.name)) for of_row in rows]
    words = [overrides_of(of_row[0]) for of_row in rows] if words is None else words
    common = set.intersection(*map(set, words))
    own = [" ".join(word for word in of_row if word not in common) for of_row in words]
    if len(set(names)) < len(rows) and any(own):
        own = [words or _NO_OVERRIDES for words in own]
        is_one_name = len(set(names)) == 1
        names = own if is_one_name else [f"{name} {words}" for name, words in zip(names, own, strict=True)]
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name} ({seen[name]})"


def settings_of(run: Run) -> Mapping[str, Any]:
    """All that decides a run but its seed; interpolations stay as they are written.

    Raises:
        StorageError: its configuration is damaged.
    """
    from omegaconf import OmegaConf

    container = OmegaConf.to_container(_yaml(run.config, run.path / "config.yaml"), resolve=False)
    if not isinstance(container, dict):
        raise StorageError(f"{run.path / 'config.yaml'} is damaged: it holds no options")
    return {str(key): value for key, value in container.items() if key not in _NOT_SETTINGS}


def overrides_of(run: Run) -> list[str]:
    """What its user changed, but for seed, folder and name.

    Raises:
        StorageError: the file of them is damaged.
    """
    from omegaconf import OmegaConf

    path = run.path / "overrides.yaml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    words = OmegaConf.to_container(_yaml(text or "[]", path), resolve=False)
    told = [str(word).lstrip("+") for word in words] if isinstance(words, list) else []
    return [word for word in told if word.partition("=")[0] not in _UNTOLD]


def _yaml(text: str, path: Path) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.create(text)
    except (YAMLError, OmegaConfBaseException) as error:
        raise StorageError(f"{path} is damaged: {str(error).splitlines()[0]}") from error


def _seed(run: Run) -> int:
    return int(run.manifest["seed"])


def others_asked_noted(records: Sequence[Record]) -> list[str]:
    """Says where each seed has people of its own, as of drawn populations, or at least other pairs."""
    asked: dict[str, dict[int, str]] = {}
    for record in records:
        asked.setdefault(record.data, {})[record.seed] = record.asked
    own = [data for data, by_seed in asked.items() if len(set(by_seed.values())) == len(by_seed) > 1]
    where = f" ({', '.join(own)})" if any(own) and len(own) < len(asked) else ""
    return [f"Each seed asks other people, or the same ones other pairs{where}."] if own else []


def versions_noted(runs: Sequence[Run]) -> list[str]:
    """Says where not all runs were made by the same code."""
    versions = [run.manifest.get("versions") or {} for run in runs]
    packages = sorted({name for known in versions for name in known})
    differing = [name for name in packages if len({known.get(name) for known in versions}) > 1]
    sources = [run.manifest.get("source") or {} for run in runs]
    if len({source.get("commit") for source in sources}) > 1:
        differing.append("the source of fedpref")
    return (
        [f"Not all runs were made by the same code; what differs: {', '.join(differing)}."]
        if differing
        else []
    )
