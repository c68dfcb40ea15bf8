"""Pages of HTML that hold all that they show, plots' scripts included: they need no network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..runtime_harness.bundle.atomic import replace_file

__all__ = ["check_report_path", "write_page"]


def check_report_path(path: str | os.PathLike[str]) -> Path:
    """Raise `InputError` where a page could not be written."""
    place = Path(path)
    if place.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"The report {place} must be an .html file.")
    if place.is_dir() or not place.absolute().parent.is_dir():
        raise InputError(f"{place.absolute().parent} is no directory: the report goes there.")
    return place


def write_page(
    path: str | os.PathLike[str],
    template: str,
    *,
    title: str,
    facts: Sequence[str] = (),
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
    **values: Any,
) -> Path:
    """Write ``template`` of `templates` with ``values``, whole or not at all.

    Under the title stand ``facts``, and in boxes ``warnings`` and ``notes``. Raises `InputError`
    for a bad path.
    """
    import jinja2

    place = check_report_path(path)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template(template).render(
        title=title, facts=facts, warnings=warnings, notes=notes, **values
    )
    replace_file(place, text.encode())
    return place
