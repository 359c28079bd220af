"""``fedpref run`` and ``fedpref resume``: Hydra composes, the federation runs, the report is written."""

from __future__ import annotations

import hashlib
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fedpref.cli.compose import CONFIG_MODULE, Words, compose, jobs, parse_words, plain
from fedpref.cli.targets import working_folder_importable
from fedpref.errors import ConfigurationError, FedprefError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from fedpref.federation.federation import Federation
    from fedpref.report.rundir import RunDirectory

__all__ = ["resume_run", "run_words"]

HELP = """\
Run a federation.

  fedpref run                                                        a small synthetic federation
  fedpref run data=jsonl data.path=FILE strategy=fedprox cohort_size=10
  fedpref run -m strategy=fedavg,local_only seed=0,1,2               a sweep: one run for each point

Options
  key=value           any option: `fedpref config ls` lists the groups, `fedpref config cat strategy/fedavg`
                      the options of one choice
  --dry-run           print clients, messages, bytes, memory and virtual time, and stop
  --allow PACKAGE     let the configuration name classes of this package, which may lie in the working folder
  --config-dir DIR    a folder with further groups, such as DIR/strategy/mine.yaml
  --debug             show tracebacks
  -m, --cfg job, --info, --hydra-help    as in any Hydra application
"""


def run_words(words: Sequence[str]) -> int:
    """Run the federation, or the sweep, that the words describe; return the exit code.

    Raises:
        ConfigurationError: a word is wrong; nothing has run.
    """
    if any(word in ("-h", "--help") for word in words):
        print(HELP, end="")
        return 0
    parsed = parse_words(words)
    with working_folder_importable(parsed.allow):
        _prepare(parsed)
        if parsed.dry_run:
            from fedpref.cli.dry_run import plan_text

            for overrides in jobs(parsed):
                print(plan_text(plain(compose(overrides)), parsed.allow))
            return 0
        return _run_hydra(parsed)


def _prepare(words: Words) -> None:
    """Compose and check every job, so that a sweep does not stop halfway for a typing error."""
    from fedpref.cli.build import check_config

    if any(flag in ("--cfg", "-c", "--info", "-i", "--hydra-help") for flag in words.hydra_flags):
        return
    for overrides in jobs(words):
        check_config(plain(compose(overrides)), words.allow)


def _run_hydra(words: Words) -> int:
    import hydra

    codes: list[int] = []

    def job(config: DictConfig) -> None:
        codes.append(_guarded(config, words))

    application = hydra.main(version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name="config")(
        job
    )

    argv = sys.argv
    sys.argv = ["fedpref run", *words.hydra_flags, *words.all_overrides]
    try:
        application()
    finally:
        sys.argv = argv
    return max(codes, default=0)


def _guarded(config: DictConfig, words: Words) -> int:
    """Run one job; an error ends this job with its code, not the sweep."""
    try:
        _run_new(config, words)
    except FedprefError as error:
        if words.debug:
            traceback.print_exc()
        print(f"fedpref: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:  # a bug: Hydra would hide the traceback
        traceback.print_exc()
        return 1
    return 0


def _run_new(config: DictConfig, words: Words) -> None:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from fedpref.cli.build import federation_from
    from fedpref.report.rundir import RunDirectory

    # Interpolations stay as they are written, so that no value of the environment reaches a file.
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(typed, list)
    overrides = [str(word).removeprefix("++") for word in typed]
    federation = federation_from(plain(config), words.allow)
    federation.rehearse()
    text = OmegaConf.to_yaml(config, resolve=False)
    flags = [word for package in words.allow for word in ("--allow", package)]
    flags += [word for folder in words.config_dirs for word in ("--config-dir", folder)]
    with RunDirectory.create(
        Path(config.out),
        str(config.name),
        config=text,
        overrides=OmegaConf.to_yaml(overrides),
        config_hash=_hash(text),
        seed=federation.seed,
        command=["fedpref", "run", *flags, *overrides],
    ) as directory:
        _run_in(directory, federation, resume=False)


def resume_run(path: Path, allow: Sequence[str] = (), accept_config: bool = False) -> int:
    """Go on with the run in ``path``.

    Raises:
        ConfigurationError: its config.yaml was edited and ``accept_config`` is False.
        CheckpointError: it has no valid checkpoint.
        StorageError: it is no run directory, or another process writes it.
    """
    from omegaconf import OmegaConf

    from fedpref.cli.build import federation_from
    from fedpref.report.rundir import RunDirectory
    from fedpref.report.runs import read_run

    path = path.resolve()
    run = read_run(path)
    if run.status.get("state") == "finished":
        print(f"finished already: {path}")
        return 0
    if _hash(run.config) != run.manifest["config_hash"] and not accept_config:
        raise ConfigurationError(
            f"{path / 'config.yaml'} was edited since the run began; "
            "undo the edit, or go on with --accept-config"
        )
    with working_folder_importable(allow):
        federation = federation_from(plain(OmegaConf.create(run.config)), allow)
        with RunDirectory.reopen(path) as directory:
            _run_in(directory, federation, resume=True)
    return 0


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _run_in(directory: RunDirectory, federation: Federation, resume: bool) -> None:
    """Run, export, report; leave a status that says how it ended, whatever happens."""
    from fedpref.federation.export import export_models
    from fedpref.report.console import RunConsole, closing_lines
    from fedpref.report.html import write_report

    last_round = 0

    def show(record: Mapping[str, Any]) -> None:
        nonlocal last_round
        last_round = min(record["round"], federation.rounds)
        console.round({**record, "round": last_round})

    try:
        with _terminate_as_interrupt(), RunConsole(federation.rounds) as console:
            if resume:
                console.say(f"resuming {directory.path}")
            result = federation.run(directory, show, resume)
        adapters = directory.path / "adapters"
        exported = export_models(federation.rule, result.models, adapters)
        report = write_report(directory.path)
        directory.set_status("finished", round_number=federation.rounds, exit_code=0)
        directory.sign()
    except KeyboardInterrupt:
        directory.set_status("interrupted", round_number=last_round, exit_code=130)
        print(f"fedpref: interrupted; go on with: fedpref resume {_shown(directory.path)}", file=sys.stderr)
        raise
    except BaseException as error:
        code = error.exit_code if isinstance(error, FedprefError) else 1
        directory.set_status("failed", round_number=last_round, exit_code=code, error=str(error))
        with suppress(FedprefError):  # the run's own error is the one to show
            console.say(f"files  report: {_shown(write_report(directory.path))}")
        raise
    rounds, reached = federation.rounds, result.summary["rounds"]
    if reached > rounds:  # answers of one instant are folded together, each to a version of its own
        console.say(f"note  the last answers came together: the models are of round {reached}")
    console.close_with(
        closing_lines(
            {**result.summary, "rounds": min(reached, rounds)},
            rounds,
            report=_shown(report),
            adapters=_shown(adapters) if exported else "",
            follow_up=f"fedpref runs show {_shown(directory.path)} | "
            f"fedpref eval {_shown(directory.path)} FILE",
        )
    )


def _shown(path: Path) -> str:
    """The path as a user in the working folder would type it."""
    path, here = path.resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM stops a run as Ctrl-C does: with a status and a valid checkpoint."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, where no signal arrives anyway
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
