"""What a kernel's body is made of: typed values and buffers, as MLIR spells them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Buffer", "Value", "bytes_of", "element_of", "lanes_of", "vector"]


@dataclass(frozen=True)
class Value:
    """An SSA value: ``%name`` and the type as MLIR spells it."""

    name: str
    type: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Buffer:
    """A memref of static shape, ``shift`` elements behind where its memory begins."""

    name: str
    shape: tuple[int, ...]
    element: str
    shift: Value | None = None

    @property
    def type(self) -> str:
        """The type as MLIR spells it."""
        layout = f", strided<[{self.shape[1]}, 1], offset: ?>" if self.shift else ""
        return f"memref<{'x'.join(map(str, (*self.shape, self.element)))}{layout}>"

    def __str__(self) -> str:
        return self.name


def vector(lanes: int, element: str) -> str:
    """The type of a vector of ``lanes`` elements."""
    return f"vector<{lanes}x{element}>"


def element_of(type_: str) -> str:
    """The element of a vector type; a scalar type itself."""
    return type_.split("x")[-1].rstrip(">") if type_.startswith("vector<") else type_


def bytes_of(element: str) -> int:
    """The size of an element in memory."""
    return {"i8": 1, "i16": 2, "bf16": 2}.get(element, 4)


def lanes_of(type_: str) -> int:
    """The lanes of a vector type; 0 of a scalar."""
    return int(type_[len("vector<") :].split("x")[0]) if type_.startswith("vector<") else 0
