"""The templates of all pages, and what they may call: every value is escaped unless it is marked safe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedpref.report.gain import signed_points
from fedpref.report.units import human_bytes, human_joules, human_seconds, percent

if TYPE_CHECKING:
    import jinja2

__all__ = ["style", "template"]

_TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> jinja2.Template:
    """A file of the folder ``templates``; a value that is missing is an error when it is rendered."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": human_bytes,
        "joules": human_joules,
        "number": _number,
        "percent": percent,
        "points": signed_points,
        "seconds": human_seconds,
    }
    return environment.get_template(name)


def style(*files: str) -> str:
    """Style sheets of that folder, one after the other."""
    return "".join((_TEMPLATES / file).read_text(encoding="utf-8") for file in files)


def _number(value: float | None) -> str:
    """A reported number in four digits; a dash where none was finite."""
    return "–" if value is None else f"{value:,.4g}".replace("-", "−")
