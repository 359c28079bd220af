"""From command-line words to one plain configuration, with errors a user can act on.

Hydra composes; this module looks at the words first, so that a wrong one is named with the nearest
right one, and adds ``++`` to options of a group that stand only in the dataclass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpref.errors import ConfigurationError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig, ListConfig

__all__ = ["GROUPS", "Words", "check_directories", "compose", "jobs", "options_of", "parse_words", "plain"]

CONFIG_MODULE = "fedpref.configs"
GROUPS = (
    "data",
    "partition",
    "backbone",
    "template",
    "client",
    "combine",
    "strategy",
    "executor",
    "fleet",
    "evaluation",
    "experiment",
    "debug",
)
NODES = ("split", "limits", "checkpoint")  # configured like a group, with one choice each
KEYS = ("name", "out", "seed", "rounds", "cohort_size", "max_wait_s")
REFUSED = ("hydra.run", "hydra.sweep", "hydra.output_subdir", "hydra.job.chdir")
OPTIONAL = ("experiment", "debug")  # groups that a run can do without
FLAGS_WITH_VALUE = {"--allow": "allow", "--config-dir": "config_dirs"}
SWITCHES = {"--dry-run": "dry_run", "--debug": "debug"}
HYDRA_SWITCHES = ("-m", "--multirun", "--resolve", "--hydra-help")
_CFG = ("job", "hydra", "all")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
HYDRA_FLAGS_WITH_VALUE = {"--cfg": _CFG, "-c": _CFG, "--info": _INFO, "-i": _INFO, "--package": (), "-p": ()}


@dataclass(frozen=True)
class Words:
    """The words of ``fedpref run``, sorted.

    Attributes:
        overrides: ``key=value`` words, completed for Hydra.
        hydra_flags: flags that Hydra answers itself (``-m``, ``--cfg job``, ``--info`` …).
        allow: packages whose classes may be named besides fedpref's.
        config_dirs: directories with further configuration groups.
        dry_run: print the plan and stop.
        debug: show tracebacks.
    """

    overrides: tuple[str, ...] = ()
    hydra_flags: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    config_dirs: tuple[str, ...] = ()
    dry_run: bool = False
    debug: bool = False

    @property
    def is_sweep(self) -> bool:
        """True for a multirun."""
        return any(flag in ("-m", "--multirun") for flag in self.hydra_flags)

    @property
    def all_overrides(self) -> list[str]:
        """The overrides, with the search path of ``config_dirs``."""
        if not self.config_dirs:
            return list(self.overrides)
        paths = ",".join(f"'file://{Path(directory).resolve()}'" for directory in self.config_dirs)
        return [f"hydra.searchpath=[{paths}]", *self.overrides]


def parse_words(words: Sequence[str]) -> Words:
    """Sort the words of a command line.

    Raises:
        ConfigurationError: a flag lacks its value, or a word names no known option.
    """
    lists: dict[str, list[str]] = {"overrides": [], "hydra_flags": [], "allow": [], "config_dirs": []}
    switches = set()
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in FLAGS_WITH_VALUE:
            value = value if equals else next(rest, "")
            if not value:
                raise ConfigurationError(f"{flag} needs a value")
            lists[FLAGS_WITH_VALUE[flag]].append(value)
        elif word in SWITCHES:
            switches.add(SWITCHES[word])
        elif flag in HYDRA_FLAGS_WITH_VALUE:
            value = value if equals else next(rest, "")
            choices = HYDRA_FLAGS_WITH_VALUE[flag]
            if not value or (choices and value not in choices):
                raise ConfigurationError(f"{flag} needs a value, one of {', '.join(choices) or 'the groups'}")
            lists["hydra_flags"] += [flag, value]
        elif word in HYDRA_SWITCHES:
            lists["hydra_flags"].append(word)
        elif word.startswith("-"):
            flags = (*FLAGS_WITH_VALUE, *SWITCHES, *HYDRA_SWITCHES, *HYDRA_FLAGS_WITH_VALUE)
            mend = did_you_mean(flag, flags)
            raise ConfigurationError(f"unknown option '{flag}'.{mend} There are {', '.join(flags)}")
        else:
            lists["overrides"].append(word)
    result = Words(
        overrides=tuple(lists["overrides"]),
        hydra_flags=tuple(lists["hydra_flags"]),
        allow=tuple(lists["allow"]),
        config_dirs=tuple(lists["config_dirs"]),
        dry_run="dry_run" in switches,
        debug="debug" in switches,
    )
    check_directories(result.config_dirs)
    with _hydra():
        return replace(result, overrides=tuple(_completed(word, result) for word in result.overrides))


def check_directories(config_dirs: Sequence[str]) -> None:
    """Raise ConfigurationError if one of the folders of ``--config-dir`` is none."""
    for directory in config_dirs:
        if not Path(directory).is_dir():
            raise ConfigurationError(f"--config-dir {directory} is not a directory")


def _completed(word: str, words: Words) -> str:
    """``word`` as Hydra takes it, after checking its key and, for a group, its choices."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigurationError(
            f"'{word}' is not of the form key=value; quote values with spaces, commas or brackets, "
            f"such as \"key='a b'\" ({str(error).splitlines()[0]})"
        ) from error
    key = override.key_or_group
    head = key.split(".")[0].split("/")[0]
    if any(key == refused or key.startswith(refused + ".") for refused in REFUSED):
        raise ConfigurationError(f"{key} is derived; choose out=DIR and name=NAME instead")
    if head == "hydra":
        return word
    if override.is_sweep_override() and not words.is_sweep:
        raise ConfigurationError(f"'{word}' is a sweep; add -m, or write a list as {key}=[…]")
    known = [*GROUPS, *NODES, *KEYS]
    if head not in known:
        if override.is_add() and not override.is_force_add():
            return word
        raise ConfigurationError(f"unknown option '{key}'.{did_you_mean(head, known)}")
    if override.is_delete() and key in known and key not in OPTIONAL:
        raise ConfigurationError(f"'{word}' leaves no {key}, which every run needs; set {key}=VALUE instead")
    if head not in (*GROUPS, *NODES):
        return word
    if "." in key:
        is_plain = not (override.is_add() or override.is_force_add() or override.is_delete())
        return f"++{word}" if is_plain else word
    if head in NODES:
        raise ConfigurationError(f"{key} holds options; set {key}.OPTION=VALUE")
    options = options_of(head, words.config_dirs)
    choices = [str(choice) for choice in _choices(override)]
    for choice in choices:
        if choice not in options:
            raise ConfigurationError(
                f"{head}={choice} does not exist.{did_you_mean(choice, options)} "
                f"There are {', '.join(options)}"
            )
    return word


def _choices(override: Any) -> list[Any]:
    if override.is_sweep_override():
        return list(override.sweep_iterator())
    return [override.value()]


def options_of(group: str, config_dirs: Sequence[str] = ()) -> list[str]:
    """Names of the configurations in a group, sorted."""
    from importlib.resources import files

    roots = [files(CONFIG_MODULE) / group, *(Path(directory) / group for directory in config_dirs)]
    names = {
        entry.name.removesuffix(".yaml")
        for root in roots
        if root.is_dir()
        for entry in root.iterdir()
        if entry.name.endswith(".yaml")
    }
    return sorted(names)


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra, initialised for composing and forgotten afterwards."""
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        yield


def jobs(words: Words) -> list[list[str]]:
    """The overrides of every job: one list, or one for each point of a sweep."""
    if not words.is_sweep:
        return [words.all_overrides]
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    overrides = OverridesParser.create().parse_overrides(words.all_overrides)
    (batch,) = BasicSweeper.split_arguments(overrides, None)
    return [list(job) for job in batch]


def compose(overrides: Sequence[str]) -> DictConfig:
    """The configuration of one job.

    Raises:
        ConfigurationError: Hydra cannot compose it.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _hydra():
            config: DictConfig = hydra.compose("config", overrides=list(overrides))
        OmegaConf.to_container(config, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigurationError(f"the configuration cannot be composed: {_first_line(error)}") from error
    return config


def _first_line(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines()[:2] if line.strip())


def plain(config: DictConfig | ListConfig) -> Mapping[str, Any]:
    """The configuration as resolved dictionaries and lists.

    Raises:
        ConfigurationError: a mandatory value ("???") is missing.
    """
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigurationError(f"{missing[0]} is required; set {missing[0]}=VALUE")
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
