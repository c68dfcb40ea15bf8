"""What a caller may ask of the compiler, checked before any work is done."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from .. import targets
from ..errors import InputError
from ..targets import PRECISIONS, Target
from .flags import FUSIONS
from .models import SourceModel
from .patterns.registry import pipeline
from .quantization.precisions import QUANTIZED, Activations
from .quantization.texts import Calibration, Text, read_texts

__all__ = ["ACTIVATIONS", "TOLERANCES", "CompileOptions"]

TOLERANCES: dict[str, dict[str, float]] = {
    "f32": {"max_abs_rel": 1e-4},
    "bf16": {"cosine": 0.9995},
    "f16": {"cosine": 0.9995},
    **{precision: {"cosine": 0.998} for precision in QUANTIZED},
}
"""How far a compiled model may lie from the uncompiled float32 one, by precision."""

ACTIVATIONS = get_args(Activations)
"""How int8 quantises what products read: by each row's own range, from its least to its greatest
value or as far below zero as above; or by one range for all, found on the calibration."""


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """Validated options. ``seq_lens`` ascend; ``timeout`` is seconds per module,
    ``memory_limit`` bytes per compiling process; ``calibration`` is texts, for the precisions that
    take one; ``cosine`` is the least that a bundle must have, None the precision's own;
    ``narrow_tables``: whether large tables of words are int8, None as the precision has it."""

    targets: tuple[Target, ...]
    seq_lens: tuple[int, ...]
    batch: int
    precision: str
    fusion: str
    drop_patterns: tuple[str, ...]
    timeout: float | None
    memory_limit: int | None
    isolated: bool = True
    tune: bool = False
    calibration: tuple[Text, ...] | None = None
    activations: Activations = "dynamic"
    cosine: float | None = None
    narrow_tables: bool | None = None

    @property
    def tolerance(self) -> dict[str, float]:
        """How far the bundle may lie from the uncompiled model."""
        if self.cosine is not None:
            return {"cosine": self.cosine}
        if self.narrow_tables and self.precision not in QUANTIZED:
            return dict(TOLERANCES["int8"])
        return dict(TOLERANCES[self.precision])

    @classmethod
    def checked(
        cls,
        *,
        target: str | Target | Sequence[str | Target],
        seq_len: int | Sequence[int],
        batch: int = 1,
        precision: str = "auto",
        fusion: str = "auto",
        drop_patterns: Sequence[str] = (),
        timeout: float | None = None,
        memory_limit: int | None = None,
        isolated: bool = True,
        tune: bool = False,
        calibration: Calibration | None = None,
        activations: str = "dynamic",
        cosine: float | None = None,
    ) -> CompileOptions:
        """Build from what a caller passed; raises `InputError` naming what is wrong."""
        chosen = _targets(target)
        lengths = _lengths(seq_len)
        if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= 1024:
            raise InputError(f"The batch must be a whole number from 1 to 1024, not {batch!r}.")
        if precision not in ("auto", *PRECISIONS):
            raise InputError(
                f"Unknown precision {precision!r}: choose auto, {', '.join(PRECISIONS)}."
            )
        precision = "f32" if precision == "auto" else precision
        for one in chosen:
            if precision not in one.precisions:
                raise InputError(
                    f"Target {one.name} cannot do {precision}: it can do "
                    f"{', '.join(one.precisions)}."
                )
        chosen = tuple(_needed(one, precision) for one in chosen)
        if fusion not in FUSIONS:
            raise InputError(f"Unknown fusion {fusion!r}: choose one of {', '.join(FUSIONS)}.")
        if fusion == "stock" and precision != "f32":
            raise InputError(
                f"--fusion stock is the compiler without our patterns, which do {precision}: "
                "choose auto or none, or f32."
            )
        if isinstance(drop_patterns, str):
            drop_patterns = (drop_patterns,)
        for one in chosen:
            pipeline(one, fusion=fusion, drop=drop_patterns)
        for name, limit in (("timeout", timeout), ("memory_limit", memory_limit)):
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise InputError(f"{name} must be positive, not {limit!r}.")
        quantized = ", ".join(QUANTIZED)
        if calibration is not None and precision not in QUANTIZED:
            raise InputError(f"A calibration is for {quantized}: leave it out for {precision}.")
        if cosine is not None and precision not in QUANTIZED:
            raise InputError(f"A cosine is for {quantized}: leave it out for {precision}.")
        if cosine is not None and not 0 < cosine < 1:
            raise InputError(f"The cosine must lie between 0 and 1, not {cosine!r}.")
        return cls(
            targets=chosen,
            seq_lens=lengths,
            batch=batch,
            precision=precision,
            fusion=fusion,
            drop_patterns=tuple(drop_patterns),
            timeout=timeout,
            memory_limit=memory_limit,
            isolated=isolated,
            tune=tune,
            calibration=None if calibration is None else read_texts(calibration),
            activations=_check_activations(activations, precision, chosen),
            cosine=cosine,
        )

    def check_model(self, source: SourceModel) -> None:
        """Raise `InputError` where the model has no position for the longest length."""
        longest = self.seq_lens[-1]
        if source.tokens and source.max_length is not None and longest > source.max_length:
            raise InputError(
                f"{source.name} has positions for {source.max_length} tokens, so it cannot be "
                f"compiled for {longest}: ask for at most {source.max_length}."
            )


def _check_activations(activations: str, precision: str, chosen: Sequence[Target]) -> Activations:
    match activations:
        case "dynamic":
            return "dynamic"
        case "symmetric" | "static" as found:
            pass
        case _:
            raise InputError(
                f"Unknown activations {activations!r}: choose one of {', '.join(ACTIVATIONS)}."
            )
    if precision != "int8":
        raise InputError(
            f"{found.capitalize()} activations are for int8: leave them out for {precision}."
        )
    for one in chosen:
        if one.kind != "cpu":
            raise InputError(
                f"Target {one.name} cannot do int8 with {found} activations, which are for CPUs: "
                "take dynamic ones."
            )
    return found


def _targets(given: str | Target | Sequence[str | Target]) -> tuple[Target, ...]:
    listed = [given] if isinstance(given, (str, Target)) else list(given)
    if not listed:
        raise InputError("No target was given: name one, for example 'host'.")
    found = [t if isinstance(t, Target) else targets.get(t) for t in listed]
    return tuple({target.name: target for target in found}.values())


def _needed(target: Target, precision: str) -> Target:
    """``target`` without the features that only a narrower precision would use.

    A bundle runs wherever the features it names are; f32 has no use for AMX tiles.
    """
    if precision != "f32":
        return target
    kept = tuple(feature for feature in target.features if not feature.startswith("amx-"))
    return dataclasses.replace(target, features=kept)


def _lengths(given: int | Sequence[int]) -> tuple[int, ...]:
    listed = [given] if isinstance(given, int) else list(given)
    for length in listed:
        if not isinstance(length, int) or isinstance(length, bool) or not 1 <= length <= 65536:
            raise InputError(
                f"A sequence length must be a whole number from 1 to 65536, not {length!r}."
            )
    if not listed:
        raise InputError("No sequence length was given: name at least one, for example 128.")
    return tuple(sorted(set(listed)))
