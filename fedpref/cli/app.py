"""The commands of ``fedpref`` and how errors become exit codes."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import typer.core

from fedpref.errors import FedprefError

__all__ = ["app", "run_app"]

typer.core.HAS_RICH = False  # with it, plain help shows "\\[required]"
app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    suggest_commands=False,  # click does, too
    help="Simulate how a federation learns from private, differing preferences.\n\n"
    "fedpref run\n\n"
    "fedpref run data=jsonl data.path=FILE strategy=fedprox cohort_size=10\n\n"
    "fedpref runs ls",
)
config_app = typer.Typer(
    no_args_is_help=True, suggest_commands=False, help="Groups, presets and their options."
)
data_app = typer.Typer(
    no_args_is_help=True, suggest_commands=False, help="Look at preference data, or fetch some."
)
fleet_app = typer.Typer(no_args_is_help=True, suggest_commands=False, help="Look at devices and links.")
runs_app = typer.Typer(
    no_args_is_help=True, suggest_commands=False, help="Look at finished and running runs."
)
new_app = typer.Typer(no_args_is_help=True, suggest_commands=False, help="Write the files of a plug-in.")
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.add_typer(fleet_app, name="fleet")
app.add_typer(runs_app, name="runs")
app.add_typer(new_app, name="new")

WORDS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
Format = Annotated[str, typer.Option("--format", help="text or json")]
Orders = Literal["both", "single"]
Vote = Literal["majority", "mean"]
BadRows = Literal["error", "drop"]
TableFormat = Literal["table", "json", "md", "tex"]
By = Literal["seed"]
Allow = Annotated[list[str] | None, typer.Option(help="further packages of classes")]
ConfigDirs = Annotated[list[str] | None, typer.Option(help="folders with further groups")]


def run_app() -> None:
    """Run the command line; exit with the code of the error, one clear line on stderr."""
    import click

    try:
        sys.exit(app(standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:  # a configuration error too: exit code 2
        print(f"fedpref: {error.format_message()} Try --help.", file=sys.stderr)
        sys.exit(error.exit_code)
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


@app.command(context_settings=WORDS)
def profile(context: typer.Context) -> None:
    """Run a federation and say where its time went: fedpref profile [key=value ...]."""
    from fedpref.cli.profile import profile_words

    raise typer.Exit(profile_words(context.args))


@app.command()
def bench(
    suites: Annotated[list[str] | None, typer.Argument(help="names, or YAML files; all, if none")] = None,
    tier: Annotated[str, typer.Option(help="smoke, small or full")] = "smoke",
    strategies: Annotated[str, typer.Option(help="methods, or strategies of your own, a,b")] = "",
    seeds: Annotated[str, typer.Option(help="in place of the tier's, 0,1,2")] = "",
    jobs: Annotated[int, typer.Option(help="runs at a time; 0 is one a core")] = 0,
    address: Annotated[str | None, typer.Option(help="of a Ray cluster to run them on, host:port")] = None,
    out: Annotated[Path, typer.Option(help="folder of all runs")] = Path("bench"),
    data: Annotated[Path | None, typer.Option(help="folder of the real annotators' files")] = None,
    tune: Annotated[bool, typer.Option(help="choose the options of the methods anew")] = False,
    check: Annotated[bool, typer.Option(help="compare with the figures that are kept")] = False,
    expect: Annotated[str | None, typer.Option(help="keep the figures, for this reason")] = None,
    markdown: Annotated[Path | None, typer.Option(help="file of sections to write the tables to")] = None,
    allow: Allow = None,
    config_dir: ConfigDirs = None,
    debug: Annotated[bool, typer.Option(help="show tracebacks")] = False,
) -> None:
    """Run benchmark suites: what is finished is not run again, what was interrupted goes on.

    fedpref bench heterogeneity --tier small

    fedpref bench heterogeneity --tier smoke --strategies fedavg,mine --config-dir my_configs --allow mine
    """
    from fedpref.cli.bench import Asked, numbers, words
    from fedpref.cli.bench import bench as run_suites

    flags = [part for one in allow or () for part in ("--allow", one)]
    flags += [part for one in config_dir or () for part in ("--config-dir", one)]
    figures = (tune, check, expect, markdown)
    who = (suites or (), tier, words(strategies), numbers(seeds))
    asked = Asked(*who, jobs, address, out, data, flags, *figures)
    raise typer.Exit(run_suites(asked))


@app.command(context_settings={"allow_extra_args": True})
def tune(
    context: typer.Context,
    storage: Annotated[Path, typer.Option(help="folder of the search; the same one to go on with it")],
    trials: Annotated[int, typer.Option(help="runs in all, those of before with them")] = 30,
    space: Annotated[Path | None, typer.Option(help="YAML of options to search, key: choice(a,b)")] = None,
    format_: Annotated[Literal["text", "json"], typer.Option("--format", help="of the result")] = "text",
    allow: Allow = None,
    config_dir: ConfigDirs = None,
    debug: Annotated[bool, typer.Option(help="show tracebacks")] = False,
) -> None:
    """Search for good options: fedpref tune [key=value ...] 'key=loguniform(a,b)' ... --storage DIR.

    An option is searched as choice(a,b,…), uniform(a,b) or loguniform(a,b). Trials are judged by training
    pairs held out, never by test pairs. Killed, the same command goes on.
    """
    from fedpref.cli.tune import as_text, tune_words

    with contextlib.redirect_stdout(sys.stderr):  # the result alone goes to stdout
        result = tune_words(context.args, storage, trials, space, allow or (), config_dir or ())
    _print(result, format_, as_text)


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="run directory, such as runs/latest")],
    allow: Allow = None,
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
    allow: Allow = None,
) -> None:
    """Evaluate a trained run on other rows: fedpref eval RUN FILE [data.OPTION=VALUE ...].

    Known clients are served their own model, newcomers what the strategy serves them.
    """
    from fedpref.cli.evaluate import as_text, evaluate_run
    from fedpref.cli.targets import working_folder_importable

    with working_folder_importable(allow or ()):
        result = evaluate_run(directory, file, context.args, allow or ())
    _print(result, format_, as_text)


@app.command(context_settings={"allow_extra_args": True})
def adapt(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="run directory of a personal method")],
    file: Annotated[Path | None, typer.Argument(help="preference rows; else the run's unseen people")] = None,
    held_out: Annotated[float, typer.Option(help="share of pairs to ask, if rows have no split")] = 0.3,
    resamples: Annotated[int, typer.Option(help="shuffles of the pairs that are shown")] = 10,
    reference: Annotated[Path | None, typer.Option(help="run to compare with, else RUN as it is")] = None,
    format_: Format = "text",
    allow: Allow = None,
) -> None:
    """Fit new people from a trained run: fedpref adapt RUN [FILE] [data.OPTION=VALUE ...].

    What is shared stays as it is. Accuracy is on pairs held out, for more and more pairs shown.
    """
    from fedpref.cli.adapt import adapt_run, as_text
    from fedpref.cli.targets import working_folder_importable

    with working_folder_importable(allow or ()):
        result = adapt_run(directory, file, context.args, held_out, resamples, reference, allow or ())
    _print(result, format_, as_text)


@app.command("label")
def label_pairs(
    directory: Annotated[Path, typer.Argument(help="run directory")],
    file: Annotated[Path, typer.Argument(help="rows with prompt, response_a and response_b")],
    orders: Annotated[Orders, typer.Option(help="ask in both orders, or in that of the file")] = "both",
    vote: Annotated[Vote, typer.Option(help="of the models, or their mean margin")] = "majority",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="file to write, else stdout")] = None,
    bad_rows: Annotated[BadRows, typer.Option(help="stop at a row that cannot be used, or not")] = "error",
    format_: Format = "text",
    allow: Allow = None,
) -> None:
    """Label pairs that nobody has judged with all models of a run: fedpref label RUN FILE -o OUT.

    The result is preference rows: prompt, chosen, rejected, margin, votes, agreement.
    """
    from fedpref.cli.label import as_text, label_run
    from fedpref.cli.targets import working_folder_importable

    with working_folder_importable(allow or ()):
        figures = label_run(directory, file, out, orders, vote, bad_rows, allow or ())
    if out is None:  # the rows went there
        with contextlib.redirect_stdout(sys.stderr):
            _print(figures, format_, as_text)
    else:
        _print(figures, format_, as_text)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run directories, or folders of them")],
    metric: Annotated[
        list[str] | None,
        typer.Option(help="to show with intervals, again for others [default: user_accuracy]"),
    ] = None,
    by: Annotated[By | None, typer.Option(help="also one line for each seed")] = None,
    format_: Annotated[TableFormat, typer.Option("--format")] = "table",
) -> None:
    """Compare finished runs: fedpref compare runs/NAME/* [--metric pair_accuracy].

    Runs that differ in their seed only share a row; all others are compared with that of the first run.
    """
    from fedpref.cli.compare import as_text, compare_runs

    print(as_text(compare_runs(runs, metric or ()), format_, metric or (), by is not None))


@app.command()
def report(
    path: Annotated[Path, typer.Argument(metavar="RUN|SWEEP", help="run directory, or a folder of some")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="file or folder [default: report.html in it]")
    ] = None,
    tier: Annotated[str, typer.Option(help="of a suite; else the one that ended last")] = "",
) -> None:
    """Write one page about a run, a sweep or a suite: fedpref report bench/heterogeneity -o page.html.

    A sweep is a folder of runs, such as runs/NAME: those that differ in their seed only share a row.
    """
    from fedpref.cli.report import report as write_page

    print(write_page(path, out, tier))


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="run directory")],
    to: Annotated[Path, typer.Option(help="new folder, one folder below it for each model")],
    merge: Annotated[bool, typer.Option("--merge", help="also write whole models, to DIR/merged")] = False,
    allow: Allow = None,
) -> None:
    """Write all models of a run in a form that other tools read: fedpref export RUN --to DIR."""
    from fedpref.cli.export import export_run
    from fedpref.cli.targets import working_folder_importable

    with working_folder_importable(allow or ()):
        folders = export_run(directory, to, merge, allow or ())
    print("\n".join(["written", *(f"  {folder}" for folder in folders)]))


@config_app.command("ls")
def config_ls(
    group: Annotated[str | None, typer.Argument(help="such as strategy; all if left out")] = None,
    config_dir: ConfigDirs = None,
    format_: Format = "text",
) -> None:
    """List groups, or the choices of a group."""
    from fedpref.cli.config import list_group, listing_text

    _print(list_group(group, config_dir or ()), format_, listing_text)


@config_app.command("cat")
def config_cat(
    choice: Annotated[str, typer.Argument(help="GROUP/NAME, such as strategy/fedavg")],
    config_dir: ConfigDirs = None,
    allow: Allow = None,
) -> None:
    """Show a configuration with all its options, their types and defaults."""
    from fedpref.cli.config import describe
    from fedpref.cli.targets import working_folder_importable

    with working_folder_importable(allow or ()):
        print(describe(choice, config_dir or (), allow or ()))


@data_app.command("inspect", context_settings=WORDS)
def data_inspect(context: typer.Context) -> None:
    """Show counts per client, three pairs as the model sees them, and what was dropped and why.

    fedpref data inspect FILE [key=value ...] [--format json], or with data=… words alone.
    """
    from fedpref.cli.data import as_text, inspect_words

    if any(word in ("-h", "--help") for word in context.args):
        print(context.get_help())
        return
    words, format_ = _take_format(context.args)
    _print(inspect_words(words), format_, as_text)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="llmfao, ukpconvarg, mtbench or polis")],
    to: Annotated[Path | None, typer.Option(help="folder to write to, else the cache")] = None,
    accept: Annotated[
        str | None, typer.Option(help="digest that the first call printed, once you compared it")
    ] = None,
    debug: Annotated[bool, typer.Option(help="show tracebacks")] = False,
) -> None:
    """Fetch real preferences that others published, and convert them: fedpref data get NAME."""
    from fedpref.cli.data import get_set

    get_set(name, to, accept)


@fleet_app.command("inspect", context_settings=WORDS)
def fleet_inspect(context: typer.Context) -> None:
    """Show what every device class of a run's fleet has, and how long one task and its messages take there.

    fedpref fleet inspect [key=value ...] [--format json], with the words of fedpref run.
    """
    from fedpref.cli.fleet import as_text, inspect_words

    if any(word in ("-h", "--help") for word in context.args):
        print(context.get_help())
        return
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
    """Show versions, devices, extras, disk and memory."""
    from fedpref.cli.doctor import as_text, examine

    _print(examine(), format_, as_text)
