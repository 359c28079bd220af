"""What is public is what ``__all__`` reaches."""

import ast
import inspect
from pathlib import Path

import pytest

import fedpref

SOURCE = Path(fedpref.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", fedpref.__all__)
def test_every_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(fedpref, name)
    if name != "__version__":
        assert inspect.getdoc(value), name


def test_type_checkers_see_the_names_that_load() -> None:
    seen = {
        str(alias.asname)
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fedpref.")
        for alias in node.names
    }
    assert seen == set(fedpref.__all__) - {"__version__"}


def test_dir_shows_what_is_public_and_nothing_else_loads() -> None:
    assert dir(fedpref) == sorted(fedpref.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = fedpref.Nothing


def test_the_ten_lines_of_the_docstring_run() -> None:
    lines = [line[4:] for line in str(fedpref.__doc__).splitlines() if line.startswith("    ")]
    code = (
        "\n".join(lines)
        .replace('preset="tiny"', 'preset="tiny", form="text"')
        .replace("rounds=10", "rounds=2")
    )
    namespace: dict[str, object] = {}
    exec(compile(code, "docstring", "exec"), namespace)  # our own docstring
    result = namespace["result"]
    assert isinstance(result, fedpref.Result)
    assert 0.4 < result.summary["pair_accuracy"] < 1
