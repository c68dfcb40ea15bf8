"""From an architecture to the program that the compiler would make of it, without compiling.

`model` follows BERT's operations, `trace` makes calls of them, `names` reads what those are; a
test holds all of it against compiled models.

It is exactly that of a fresh model (`space.models.fresh_model`). Two things follow from trained
weights alone: which blocks are zero, which may be said, and which int8 layers are kept wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial

from ...compiler.compression.precisions import bundle_precision
from ...compiler.kernels.choosing.tuning import choices_for
from ...compiler.kernels.executable import Kernel
from ...compiler.options import CompileOptions
from ...errors import InputError, UnsupportedError
from ...targets import Target, host_target
from ..space.architecture import KINDS, Architecture
from ..space.masks import drawn_blocks
from .dispatch import Program
from .model import Blocks, Model
from .names import dispatch_of

__all__ = ["calls_of", "program_of"]


def program_of(
    architecture: Architecture,
    target: str = "host",
    threads: int = 1,
    *,
    cpu_features: tuple[str, ...] = (),
    blocks: Blocks | None = None,
) -> Program:
    """The dispatches of one call, in order, on a CPU ``target``; some milliseconds of work.

    ``cpu_features`` are those of the machine that ``host`` stands for; none: this one.

    ``blocks`` says which blocks of each matrix stay, where that is known
    (`space.models.blocks_of`); None takes them as drawn.

    Raises `InputError` for a precision that the target cannot do, `UnsupportedError` for a target
    that is no CPU, or an attention that no kernel serves.
    """
    place = _target(target, bundle_precision(architecture.recipe()), cpu_features)
    asked = {form.precision for layer in architecture.layers for form in map(layer.form, KINDS)}
    for precision in sorted({*asked, architecture.rest}):
        if precision not in place.precisions:
            raise InputError(
                f"Target {place.name} cannot do {precision}: it can do "
                f"{', '.join(place.precisions)}."
            )
    calls = calls_of(architecture, target, cpu_features=cpu_features, blocks=blocks)
    names = (call if isinstance(call, str) else call.entry for call in calls)
    return Program(
        target=target,
        threads=threads,
        seq_len=architecture.seq_len,
        dispatches=tuple(map(dispatch_of, names)),
    )


def calls_of(
    architecture: Architecture,
    target: str = "host",
    *,
    cpu_features: tuple[str, ...] = (),
    blocks: Blocks | None = None,
) -> list[Kernel | str]:
    """The kernels that are called, in order, and the names of IREE's own dispatches."""
    precision = bundle_precision(architecture.recipe())
    found = blocks or partial(drawn_blocks, architecture)
    place = _target(target, precision, cpu_features)
    return Model(architecture, place, precision, _choices(place), found).calls()


@lru_cache(maxsize=64)
def _target(name: str, precision: str, cpu_features: tuple[str, ...]) -> Target:
    """The target as a compilation in a precision takes it."""
    given = host_target(cpu_features) if name == "host" and cpu_features else name
    (found,) = CompileOptions.checked(target=given, seq_len=1, precision=precision).targets
    if found.kind != "cpu":
        raise UnsupportedError(
            f"Programs are derived for CPUs, and target {name} is {found.kind}: compile the model."
        )
    return found


@lru_cache(maxsize=64)
def _choices(target: Target) -> Mapping[str, str]:
    return choices_for(target)[0]
