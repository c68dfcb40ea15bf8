"""Reading a study's own JSON: each value is checked by the type that is asked for.

Files of a study are nobody's promise: they may be cut short, edited, of another release. Whatever
they hold becomes values of these types, or one `InputError` that names the field.
"""

from __future__ import annotations

import contextlib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ...compiler.compression.fields import shown
from ...errors import InputError
from ...runtime_harness.bundle.fields import parse_json

__all__ = ["damaged", "read_as", "read_fields", "read_file", "read_row"]

T = TypeVar("T")


def read_file(path: Path) -> object:
    """What a file of JSON holds; None where there is none. Raises `InputError` for what is no
    plain JSON."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return parse_json(data, "it")


@contextlib.contextmanager
def damaged(path: Path, remedy: str) -> Iterator[None]:
    """Have an `InputError` of the block say which file it is about, and what to do."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path} is damaged ({str(error).rstrip('.')}): {remedy}.") from error


def read_as(cls: type[T], value: object, of: str) -> T:
    """A dataclass of JSON values, one for each field, read by the fields' types; ``of`` names
    what it is. Raises `InputError` for a field that is missing, unknown, or of another type."""
    return cls(**read_fields(cls, value, of))


def read_fields(cls: type[Any], value: object, of: str, *, version: int = 0) -> dict[str, Any]:
    """The fields of a dataclass as `read_as` gives them; ``version``: which it must have, unless
    0."""
    found = _record(value, of)
    if version and found.pop("version", None) != version:
        raise InputError(f"version of {of} is not {version}: another canao wrote it")
    wanted = typing.get_type_hints(cls)
    for name in found:
        if name not in wanted:
            raise InputError(f"{of} has no field {shown(name)}")
    return read_row(found, wanted, of)


def read_row(value: object, wanted: Mapping[str, Any], of: str) -> dict[str, Any]:
    """An object of JSON that has at least the fields ``wanted``, each of the type named there."""
    found = _record(value, of)
    for name, kind in wanted.items():
        if name not in found:
            raise InputError(f"{name} of {of} is missing")
        found[name] = _value(kind, found[name], f"{name} of {of}")
    return found


def _record(value: object, of: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InputError(f"{of} must be an object, not {shown(value)}")
    return dict(value)


def _value(kind: Any, value: object, field: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = (one for one in inner if one is not type(None))
        return _value(kind, value, field)
    if origin is tuple:
        return _items(inner, value, field)
    if origin is Sequence:
        return list(_items((inner[0], ...), value, field))
    if origin is not None and issubclass(origin, Mapping):
        return _record(value, field)
    if hasattr(kind, "from_json"):
        try:
            return kind.from_json(value)
        except OverflowError as error:  # a whole number beyond all floats
            raise InputError(f"{field} holds a number that is too large") from error
    if kind is float and _is_finite(value):
        return value
    if kind is not float and type(value) is kind:
        return value
    names = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text"}
    raise InputError(f"{field} must be {names.get(kind, kind.__name__)}, not {shown(value)}")


def _items(inner: Sequence[Any], value: object, field: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{field} must be a list, not {shown(value)}")
    many = len(inner) == 2 and inner[1] is Ellipsis
    if not many and len(value) != len(inner):
        raise InputError(f"{field} must have {len(inner)} entries, not {len(value)}")
    kinds = [inner[0]] * len(value) if many else inner
    return tuple(
        _value(kind, one, f"{field}, entry {number}")
        for number, (kind, one) in enumerate(zip(kinds, value, strict=True), 1)
    )


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False
