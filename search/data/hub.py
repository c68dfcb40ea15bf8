"""Data sets in the format of the library ``datasets``: from the Hub, or saved to disk."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from .columns import LABELS, TAGS
from .files import ALIASES, AbsentSplitError

__all__ = ["is_saved", "looks_like_hub", "open_hub", "open_saved"]

_NAME = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?(:[\w.-]+)?")


def looks_like_hub(name: str) -> bool:
    """Whether ``name`` may be the id of a data set: NAME, OWNER/NAME, each perhaps :CONFIG."""
    return _NAME.fullmatch(name) is not None


def is_saved(folder: Path) -> bool:
    """Whether a directory was written by ``save_to_disk``."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def open_saved(folder: Path, split: str) -> tuple[Iterator[tuple[str, Mapping[str, Any]]], Any]:
    """Rows with their places, and the names of classes, of a saved data set."""
    with _library(str(folder)) as library:
        found = library.load_from_disk(str(folder))
        if isinstance(found, dict):  # splits by name
            name = _choose(list(found), split, str(folder))
            return _rows(found[name], f"{folder}[{name}]")
        return _rows(found, str(folder))


def open_hub(name: str, split: str) -> tuple[Iterator[tuple[str, Mapping[str, Any]]], Any]:
    """Rows with their places, and the names of classes, of a data set on the Hub."""
    identifier, _, config = name.partition(":")
    with _library(name) as library:
        splits = library.get_dataset_split_names(identifier, config or None)
        chosen = _choose(list(splits), split, name)
        found = library.load_dataset(identifier, config or None, split=chosen)
        return _rows(found, f"{name}[{chosen}]")


@contextlib.contextmanager
def _library(what: str) -> Iterator[Any]:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise InputError(
            f"{what} is read by the package 'datasets': pip install 'canao[search]'."
        ) from error
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(
            f"There is no data set {what!r} that can be read, here or on the Hub ({reason}): give "
            "a directory, a Hub id, or ID:CONFIG."
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()


def _choose(splits: list[str], split: str, what: str) -> str:
    for name in ALIASES.get(split, (split,)):
        if name in splits:
            return name
    raise AbsentSplitError(f"{what} has no split {split!r}: it has {', '.join(splits) or 'none'}.")


def _rows(found: Any, what: str) -> tuple[Iterator[tuple[str, Mapping[str, Any]]], Any]:
    columns = TAGS if "tokens" in found.features else LABELS
    feature = next((found.features[name] for name in columns if name in found.features), None)
    feature = getattr(feature, "feature", feature)  # of a list: that of its elements
    names = list(getattr(feature, "names", None) or [])
    return ((f"{what}, row {n}", row) for n, row in enumerate(found, start=1)), names
