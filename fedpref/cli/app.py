"""The commands of ``fedpref`` and how errors become exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fedpref.errors import FedprefError

__all__ = ["app", "run_app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Simulate how a federation learns from private, differing preferences.\n\n"
    "fedpref run\n\n"
    "fedpref run data=jsonl data.path=FILE strategy=fedprox cohort_size=10\n\n"
    "fedpref runs ls",
)
config_app = typer.Typer(no_args_is_help=True, help="Groups, presets and their options.")
data_app = typer.Typer(no_args_is_help=True, help="Look at preference data.")
runs_app = typer.Typer(no_args_is_help=True, help="Look at finished and running runs.")
new_app = typer.Typer(no_args_is_help=True, help="Write the files of a plug-in.")
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(runs_app, name="runs")
app.add_typer(new_app, name="new")

WORDS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
Format = Annotated[str, typer.Option("--format", help="text or json")]


def run_app() -> None:
    """Run the command line; exit with the code of the error, one clear line on stderr."""
    try:
        # click's own usage errors are configuration errors too: exit code 2
        sys.exit(app(standalone_mode=True))
    except FedprefError as error:
        if "--debug" in sys.argv:
            raise
        print(f"fedpref: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("fedpref: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe, such as head, has left
        sys.stderr.close()
        sys.exit(1)


def _print(value: Any, format_: str, as_text: Callable[[Any], str]) -> None:
    from fedpref.errors import ConfigurationError

    if format_ not in ("text", "json"):
        raise ConfigurationError(f"--format {format_} must be text or json")
    print(json.dumps(value, indent=2, sort_keys=True) if format_ == "json" else as_text(value))


@app.command(context_settings=WORDS)
def run(context: typer.Context) -> None:
    """Run a federation: fedpref run [key=value ...] [-m] [--dry-run]."""
    from fedpref.cli.run import run_words

    raise typer.Exit(run_words(context.args))


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="run directory, such as runs/latest")],
    allow: Annotated[list[str] | None, typer.Option(help="further packages of classes")] = None,
    accept_config: Annotated[bool, typer.Option(help="go on although config.yaml was edited")] = False,
    debug: Annotated[bool, typer.Option(help="show tracebacks")] = False,
) -> None:
    """Go on with an interrupted run, to the bit."""
    from fedpref.cli.run import resume_run

    raise typer.Exit(resume_run(directory, allow or (), accept_config))


@app.command("eval", context_settings={"allow_extra_args": True})
def evaluate(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="run directory")],
    file: Annotated[Path, typer.Argument(help="preference rows: .jsonl, .jsonl.gz or .parquet")],
    format_: Format = "text",
    allow: Annotated[list[str] | None, typer.Option(help="further packages of classes")] = None,
) -> None:
    """Evaluate a trained run on other rows: fedpref eval RUN FILE [data.OPTION=VALUE ...].

    Known clients are served their own model, newcomers what the strategy serves them.
    """
    from fedpref.cli.evaluate import as_text, evaluate_run

    _print(evaluate_run(directory, file, context.args, allow or ()), format_, as_text)


@config_app.command("ls")
def config_ls(
    group: Annotated[str | None, typer.Argument()] = None,
    config_dir: Annotated[list[str] | None, typer.Option()] = None,
    format_: Format = "text",
) -> None:
    """List groups, or the choices of a group."""
    from fedpref.cli.config import list_group, listing_text

    _print(list_group(group, config_dir or ()), format_, listing_text)


@config_app.command("cat")
def config_cat(
    choice: Annotated[str, typer.Argument(help="GROUP/NAME, such as strategy/fedavg")],
    config_dir: Annotated[list[str] | None, typer.Option()] = None,
    allow: Annotated[list[str] | None, typer.Option()] = None,
) -> None:
    """Show a configuration with all its options, their types and defaults."""
    from fedpref.cli.config import describe

    print(describe(choice, config_dir or (), allow or ()))


@data_app.command("inspect", context_settings=WORDS)
def data_inspect(context: typer.Context) -> None:
    """Show counts per client, three pairs as the model sees them, and what was dropped and why.

    fedpref data inspect FILE [key=value ...] [--format json], or with data=… words alone.
    """
    from fedpref.cli.data import as_text, inspect_words

    words, format_ = _take_format(context.args)
    _print(inspect_words(words), format_, as_text)


def _take_format(words: Sequence[str]) -> tuple[list[str], str]:
    rest, format_ = [], "text"
    remaining = iter(words)
    for word in remaining:
        if word == "--format":
            format_ = next(remaining, "")
        elif word.startswith("--format="):
            format_ = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, format_


@runs_app.command("ls")
def runs_ls(
    out: Annotated[Path, typer.Option(help="folder of all runs")] = Path("runs"), format_: Format = "text"
) -> None:
    """List runs, newest first."""
    from fedpref.cli.runs import list_text, rows

    _print(rows(out), format_, list_text)


@runs_app.command("show")
def runs_show(
    directory: Annotated[Path, typer.Argument(help="run directory, such as runs/latest")],
    format_: Format = "text",
) -> None:
    """Show status, key numbers and learning curve of a run."""
    from fedpref.cli.runs import details, details_text

    _print(details(directory), format_, details_text)


@new_app.command("strategy")
def new_strategy(name: Annotated[str, typer.Argument(help="lower-case name, such as mine")]) -> None:
    """Write a strategy, its configuration and its test, and say how to run them."""
    from fedpref.cli.new import write_strategy

    print(write_strategy(name, Path.cwd()))


@app.command()
def doctor(format_: Format = "text") -> None:
    """Show versions, devices, extras, disk and caches."""
    from fedpref.cli.doctor import as_text, examine

    _print(examine(), format_, as_text)
