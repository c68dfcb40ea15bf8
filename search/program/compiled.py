"""The program of a compiled model, read back from its manifest."""

from __future__ import annotations

from ...runtime_harness.bundle import Bundle
from .dispatch import Program
from .names import dispatch_of

__all__ = ["compiled_program"]


def compiled_program(
    bundle: Bundle, target: str, seq_len: int | None = None, *, threads: int = 1
) -> Program:
    """The dispatches that one call of a bundle's module executes, in order.

    Dispatches with the same code are one to IREE, under one of their names: of two products that
    are padded to the same depth, one is called as the other is.

    Raises `InputError` where the bundle has no such module, or was compiled by another canao.
    """
    module = bundle.module(target, seq_len)
    return Program(
        target=target,
        threads=threads,
        seq_len=module.seq_len,
        dispatches=tuple(dispatch_of(name) for name, _ in module.calls),
    )
