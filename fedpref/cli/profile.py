"""``fedpref profile``: run a federation and say where its time went.

The stack of the main thread is looked at every few milliseconds. That costs the run about one percent, needs
no changed code, and sees a plug-in's client rule and strategy by their modules. Other processes, as those of
executor=ray, are not looked at: waiting for them counts as transport.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from fedpref.cli.compose import compose, parse_words, plain
from fedpref.cli.run import run_words
from fedpref.errors import ConfigurationError, StorageError
from fedpref.report.flame import Frame, flame_page, is_in, phase_of, phase_table

__all__ = ["Sampler", "profile_words"]

HELP = """\
Run a federation and say where its time went.

  fedpref profile experiment=demo                                    the words of one fedpref run

Prints the seconds of each phase, and writes profile.html to the working folder.
"""

_INTERVAL_S = 0.005
_PAGE = Path("profile.html")


class Sampler:
    """Looks at the stack of the thread that enters it, until it leaves.

    Attributes:
        interval_s: seconds between two looks.
        modules: modules or packages whose functions are noted beside fedpref's.
        samples: how often each stack was seen, outermost function first.
        wall_s: wall seconds inside.
    """

    def __init__(self, interval_s: float = _INTERVAL_S, modules: Collection[str] = ()) -> None:
        self.interval_s = interval_s
        self.modules = modules
        self.samples: Counter[tuple[Frame, ...]] = Counter()
        self.wall_s = 0.0
        self._stopped = threading.Event()
        self._watched = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        self.wall_s = -time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall_s += time.monotonic()
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(self.interval_s):
            frame = sys._current_frames().get(self._watched)
            if frame is not None:
                self.samples[_stack(frame, self.modules)] += 1


def profile_words(words: Sequence[str]) -> int:
    """Run as ``fedpref run`` does, print the phases, and write the picture; return the run's exit code.

    Raises:
        ConfigurationError: a word is wrong, or the words do not describe one run.
        StorageError: the picture cannot be written to the working folder.
    """
    if any(word in ("-h", "--help") for word in words):
        print(HELP, end="")
        return 0
    parsed = parse_words(words)
    if parsed.dry_run or parsed.hydra_flags:
        flags = " ".join([*parsed.hydra_flags, *(["--dry-run"] if parsed.dry_run else [])])
        raise ConfigurationError(f"profile: give the words of one run, without {flags}")
    config = plain(compose(parsed.all_overrides))
    rule, strategy = (str(config[node]["_target_"]).rpartition(".")[0] for node in ("client", "strategy"))
    with Sampler(modules=(rule, strategy)) as sampler:
        code = run_words(words)
    phases = {stack: phase_of(stack, rule, strategy) for stack in sampler.samples}
    counts: Counter[str] = Counter()
    for stack, count in sampler.samples.items():
        counts[phases[stack]] += count
    seconds = {phase: sampler.wall_s * count / counts.total() for phase, count in counts.items()}
    print(phase_table(seconds, int(config["rounds"])))
    try:
        _PAGE.write_text(flame_page(sampler.samples, phases), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{_PAGE} cannot be written ({error}); go to a folder that can") from error
    print(f"picture  {_PAGE}")
    return code


def _stack(innermost: FrameType, modules: Collection[str]) -> tuple[Frame, ...]:
    """Outermost first: the frames of fedpref and of ``modules``, and the innermost whosever it is."""
    frames: list[Frame] = []
    frame: FrameType | None = innermost
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "?"))
        if not frames or any(is_in(module, known) for known in ("fedpref", *modules)):
            frames.append(f"{module}:{frame.f_code.co_name}")
        frame = frame.f_back
    return tuple(reversed(frames))
