"""Reading JSON that nobody vouches for: every fault becomes one BundleError."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn, TypeVar

from ...errors import BundleError
from .names import shown

__all__ = ["MAX_JSON_BYTES", "Fields", "check_plain", "dump_json", "parse_json"]

MAX_JSON_BYTES = 16 * 1024 * 1024
_MAX_DEPTH = 32
_MAX_INTEGER = 2**63

T = TypeVar("T")


def parse_json(data: bytes | memoryview, where: str) -> object:
    """Parse UTF-8 JSON of at most MAX_JSON_BYTES into plain values.

    Raises BundleError, starting with ``where``, on anything else: bad UTF-8 or syntax, a key
    given twice, NaN or an infinity, numbers beyond 64 bits, nesting deeper than 32.
    """
    if len(data) > MAX_JSON_BYTES:
        raise BundleError(f"{where} has {len(data)} bytes, more than the {MAX_JSON_BYTES} allowed")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        if len(value) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise BundleError(f"{where} has the key {shown(twice)} twice")
        return value

    try:
        value = json.loads(str(data, "utf-8"), object_pairs_hook=unique)
    except RecursionError:
        raise BundleError(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise BundleError(f"{where} is not valid JSON ({_brief(error)})") from None
    check_plain(value, where)
    return value


def _brief(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return str(error).split("\n")[0].split(";")[0][:120]


def check_plain(value: object, where: str) -> None:
    """Raise BundleError unless ``value`` is finite plain JSON of modest depth."""
    pending: list[tuple[object, int]] = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise BundleError(f"{where} is nested too deeply")
        if isinstance(item, dict):
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise BundleError(f"{where} has a key that is not text: {shown(repr(key))}")
                pending += ((key, depth), (inner, depth + 1))
        elif isinstance(item, list):
            pending.extend((inner, depth + 1) for inner in item)
        elif isinstance(item, str):
            if not item.isascii() and any("\ud800" <= char <= "\udfff" for char in item):
                raise BundleError(f"{where} holds text that is not Unicode: {shown(item)}")
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise BundleError(f"{where} holds a number that is not finite")
        elif isinstance(item, int):
            if not -_MAX_INTEGER <= item < _MAX_INTEGER:
                raise BundleError(f"{where} holds a number beyond 64 bits")
        elif item is not None:
            raise BundleError(f"{where} holds a {type(item).__name__}, which JSON does not have")


def dump_json(value: object) -> bytes:
    """Return canonical JSON: sorted keys, two spaces, a newline at the end.

    Raises BundleError if ``value`` is not plain JSON; tuples count as lists.
    """
    try:
        text = json.dumps(value, sort_keys=True, indent=2, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError(f"cannot be written as JSON: {str(error)[:120]}") from None
    return text.encode() + b"\n"


class Fields:
    """The fields of one JSON object, taken one by one, each with its type.

    ``where`` names the object in messages. ``done`` refuses whatever was not taken.
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise BundleError(f"{where} must be a JSON object, not {_kind(value)}")
        self._value: dict[str, Any] = value
        self._taken: set[str] = set()
        self.where = where

    def _fail(self, name: str, expected: str) -> NoReturn:
        found = _kind(self._value[name]) if name in self._value else "absent"
        raise BundleError(f"{self.where}: {name} must be {expected}, but is {found}")

    def take(self, name: str, expected: str, good: Callable[[Any], bool]) -> Any:
        """Return the field if ``good`` says so; ``expected`` tells what it should be."""
        self._taken.add(name)
        if name not in self._value or not good(self._value[name]):
            self._fail(name, expected)
        return self._value[name]

    def text(self, name: str, *, choices: Collection[str] | None = None) -> str:
        """Return a string; one of ``choices`` if they are given."""
        expected = "text" if choices is None else f"one of {', '.join(choices)}"
        value: str = self.take(
            name,
            expected,
            lambda item: isinstance(item, str) and (choices is None or item in choices),
        )
        return value

    def integer(self, name: str, *, minimum: int) -> int:
        """Return a whole number of at least ``minimum``."""
        value: int = self.take(
            name,
            f"a whole number of at least {minimum}",
            lambda item: _is_integer(item) and item >= minimum,
        )
        return value

    def optional_integer(self, name: str, *, minimum: int) -> int | None:
        """Return a whole number of at least ``minimum``, or None for null."""
        return None if self.is_null(name) else self.integer(name, minimum=minimum)

    def is_null(self, name: str) -> bool:
        """Tell whether the field is there and null."""
        self._taken.add(name)
        return self._value.get(name, 0) is None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings."""
        value = self.take(
            name,
            "a list of texts",
            lambda item: isinstance(item, list) and all(isinstance(part, str) for part in item),
        )
        return tuple(value)

    def items(self, name: str, build: Callable[[object, str], T]) -> tuple[T, ...]:
        """Return a list, each item built from its JSON and its place."""
        value = self.take(name, "a list", lambda item: isinstance(item, list))
        return tuple(
            build(item, f"{self.where}: {name}[{index}]") for index, item in enumerate(value)
        )

    def mapping(self, name: str) -> dict[str, Any]:
        """Return any JSON object, unlooked at."""
        value: dict[str, Any] = self.take(name, "an object", lambda item: isinstance(item, dict))
        return value

    def optional_mapping(self, name: str) -> dict[str, Any] | None:
        """Return any JSON object, or None for null."""
        return None if self.is_null(name) else self.mapping(name)

    def text_map(self, name: str) -> dict[str, str]:
        """Return an object whose values are all strings."""
        value: dict[str, str] = self.take(
            name,
            "an object of texts",
            lambda item: (
                isinstance(item, dict) and all(isinstance(part, str) for part in item.values())
            ),
        )
        return dict(value)

    def count_map(self, name: str) -> dict[str, int]:
        """Return an object whose values are all whole numbers of at least 0."""
        value: dict[str, int] = self.take(
            name,
            "an object of whole numbers",
            lambda item: (
                isinstance(item, dict)
                and all(_is_integer(part) and part >= 0 for part in item.values())
            ),
        )
        return dict(value)

    def done(self) -> None:
        """Raise BundleError if the object has a field that was not taken."""
        surplus = sorted(self._value.keys() - self._taken)
        if surplus:
            raise BundleError(f"{self.where} has the unknown field {shown(surplus[0])}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return shown(repr(value)[:200]) if isinstance(value, str) else repr(value)[:80]
