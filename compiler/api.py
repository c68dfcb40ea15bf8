"""``canao.compile``: a model in, a verified bundle out."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, NumericsError
from ..paths import cache_dir
from ..pruning import cache_limit, prune_cache
from ..runtime_harness.bundle import (
    Bundle,
    Numerics,
    check_destination,
    write_bundle,
)
from ..targets import Target
from . import cache
from .compression.manifest import recipe_of
from .compression.precisions import asked_precisions, bundle_precision
from .compression.recipe import Recipe
from .models import SourceModel, from_module, load_model
from .options import CompileOptions
from .quantization.texts import Calibration

if TYPE_CHECKING:
    import torch

    from .build import BuiltModule, ModelBuild

__all__ = ["CompileReport", "compile", "compile_model"]


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """What one compilation did.

    ``dispatches`` maps ``TARGET/SEQ`` to the dispatches one call executes; ``patterns`` how
    often each applied, over all modules; ``numerics`` each target's check, or None where no
    device here can run it; ``peak_bytes`` is the largest memory of a compiling process, 0
    where every module came from the cache. ``kernels`` maps ``TARGET/SEQ`` to how many operations
    each kind of kernel serves; ``linalg`` to how many linalg serves instead, by what they are and
    why; ``fallbacks`` has a line for each of those.
    ``quantization`` says how 8 bits or fewer were decided: the calibration, the cosine that a
    simulation found, static ranges, and the weights left wider.
    """

    bundle: Bundle
    targets: tuple[str, ...]
    seconds: float
    bytes: int
    dispatches: Mapping[str, int]
    patterns: Mapping[str, int]
    numerics: Mapping[str, Numerics | None]
    peak_bytes: int
    warnings: tuple[str, ...]
    kernels: Mapping[str, Mapping[str, int]]
    fallbacks: tuple[str, ...]
    linalg: Mapping[str, Mapping[str, int]]
    quantization: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The keys of ``canao compile --json``."""
        numerics = {
            target: None
            if found is None
            else {key: found[key] for key in ("device", "max_abs_err", "cosine", "ok")}
            for target, found in self.numerics.items()
        }
        return {
            "bundle": str(self.bundle.path),
            "targets": list(self.targets),
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            "dispatches": dict(self.dispatches),
            "patterns": dict(self.patterns),
            "numerics": numerics,
            "peak_bytes": self.peak_bytes,
            "warnings": list(self.warnings),
            "kernels": {key: dict(found) for key, found in self.kernels.items()},
            "fallbacks": list(self.fallbacks),
            "linalg": {key: dict(found) for key, found in self.linalg.items()},
            "quantization": None if self.quantization is None else dict(self.quantization),
        }


def compile(
    model: str | os.PathLike[str] | torch.nn.Module,
    *,
    target: str | Target | Sequence[str | Target] = "host",
    seq_len: int | Sequence[int] = 128,
    precision: str = "auto",
    fusion: str = "auto",
    **options: Any,
) -> Bundle:
    """Compile ``model`` and return its bundle; `compile_model` documents every option."""
    return compile_model(
        model,
        target=target,
        seq_len=seq_len,
        precision=precision,
        fusion=fusion,
        **options,
    ).bundle


def compile_model(
    model: str | os.PathLike[str] | torch.nn.Module,
    *,
    target: str | Target | Sequence[str | Target] = "host",
    seq_len: int | Sequence[int] = 128,
    precision: str = "auto",
    fusion: str = "auto",
    drop_patterns: Sequence[str] = (),
    head: str | None = None,
    batch: int = 1,
    example_inputs: Sequence[torch.Tensor] | Mapping[str, torch.Tensor] | None = None,
    name: str | None = None,
    output: str | os.PathLike[str] | None = None,
    require_verified: bool = False,
    timeout: float | None = None,
    memory_limit: int | None = None,
    isolated: bool = True,
    tune: bool = False,
    calibration: Calibration | None = None,
    activations: str = "dynamic",
    cosine: float | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> CompileReport:
    """Compile, verify on every device here that can run a target, and write a bundle.

    ``model``: a Hub id, a directory, a config.json, ``minilm``, or a live module (with
    ``example_inputs`` unless it is a Hugging Face one). ``target``, ``seq_len``: one or
    several. ``precision``: auto or a precision of the targets. ``fusion``: auto, stock or
    none. ``drop_patterns``: names to leave out. ``output``: a directory, or a file ending in
    ``.canao``; None leaves the bundle in canao's cache, from which it may be pruned once nobody
    has it open. ``timeout`` in seconds and ``memory_limit`` in bytes bound each compiling
    process; with ``isolated=False`` the compiler runs in this process, and neither holds.
    ``tune`` first measures, on this machine, the products that nobody measured here, and keeps
    the times for later compilations; ``progress`` is told each step. ``calibration`` is for
    the precisions of 8 bits or fewer: texts like those that the model will read, or a file of
    them, one a line (``.jsonl``: objects with ``text`` and perhaps ``text_pair``); None takes
    sentences of canao's own.
    ``activations``: in int8, ``dynamic`` (a range for each row, from its least to its greatest
    value), ``symmetric`` (one as far below zero as above) or ``static`` (one range for all, found
    on the calibration); what no kernel takes has dynamic ones. ``cosine``: for the precisions of
    8 bits or fewer, how alike the outputs must be; None is 0.998, and less allows narrower layers.

    ``recipe``, or a file of one, says the precision of each matrix, where ``precision`` is auto;
    None takes the recipe that a compressed model was made by. It prunes nothing here: the model
    must have the sizes that it asks for.

    Raises `InputError` for a bad call, `UnsupportedError` for an op without a form on a
    target, `NumericsError` where compiled and uncompiled outputs differ beyond the tolerance,
    or where ``require_verified`` and a target could not be run; `CompileError` otherwise.
    """
    started = time.perf_counter()
    limit = cache_limit()
    given = Recipe.load(recipe) if isinstance(recipe, (str, os.PathLike)) else recipe
    known = given or recipe_of(model)
    check = partial(
        CompileOptions.checked,
        target=target,
        seq_len=seq_len,
        batch=batch,
        fusion=fusion,
        drop_patterns=drop_patterns,
        timeout=timeout,
        memory_limit=memory_limit,
        isolated=isolated,
        tune=tune,
        calibration=calibration,
        activations=activations,
        cosine=cosine,
    )
    options = check(precision=bundle_precision(known) if precision == "auto" else precision)
    if output is not None:
        check_destination(output)
    tell = progress or (lambda _: None)
    tell("loading the model")
    source = _source(model, head, example_inputs, name)
    # They bring torch, for which a wrong call need not wait.
    from .compression.validation import check_made
    from .making import make

    options.check_model(source)
    if given is not None:
        check_made(given, source.module)
    if known is None and source.recipe is not None and precision == "auto":
        # One from the Hub, of which nothing was known before it was here.
        known = source.recipe
        options = check(precision=bundle_precision(known))
    source = replace(source, recipe=known if precision == "auto" else None)
    asked = asked_precisions(source.recipe, source.module, targets=options.targets)
    options = replace(options, narrow_tables=asked.tables)
    # What was compiled stays in the cache until it is in the bundle.
    temporary = partial(tempfile.TemporaryDirectory, prefix="canao-bundle-", dir=cache_dir())
    with cache.keeps(), temporary() as folder:
        made = make(source, options, Path(folder), tell, made_by=known)
        built, numerics, warnings = made.built, made.numerics, made.warnings
        if require_verified and warnings:
            reason = warnings[0].rstrip(".")
            raise NumericsError(f"{reason}; no bundle was written (--require-verified).")
        destination = Path(output) if output is not None else _default_output(made.staged)
        tell(f"writing {destination}")
        bundle = write_bundle(destination, made.manifest, made.files)
        for name_, found in numerics.items():
            if found is None:
                bundle.record_numerics(name_, verified=False)
            else:
                bundle.record_numerics(name_, **found)
    prune_cache(limit)
    return CompileReport(
        bundle=bundle,
        targets=tuple(t.name for t in options.targets),
        seconds=time.perf_counter() - started,
        bytes=bundle.size_bytes,
        dispatches={_key(module): len(module.result.calls) for module in built.modules},
        patterns=_sum_patterns(built.modules),
        numerics=numerics,
        peak_bytes=max((module.peak_bytes for module in built.modules), default=0),
        warnings=(*_doubts(built), *built.notes, *_notes(built.modules), *warnings),
        kernels={_key(module): module.result.kernels for module in built.modules},
        fallbacks=tuple(
            f"{_key(module)}: {line}"
            for module in built.modules
            for line in module.result.fallbacks
        ),
        linalg={_key(module): module.result.linalg for module in built.modules},
        quantization=built.quantization.report if built.quantization else None,
    )


def _source(model: Any, head: str | None, example_inputs: Any, name: str | None) -> SourceModel:
    if isinstance(model, (str, os.PathLike)):
        if example_inputs is not None:
            raise InputError("example_inputs go with a module, not with the name of a model.")
        source = load_model(model, head=head)
        return replace(source, name=name) if name else source
    import torch

    if not isinstance(model, torch.nn.Module):
        raise InputError(f"A model is a name, a path or an nn.Module, not {type(model).__name__}.")
    if head is not None:
        raise InputError("head chooses among a checkpoint's heads; a live module has its own.")
    return from_module(model, example_inputs, name=name)


def _doubts(built: ModelBuild) -> tuple[str, ...]:
    return built.quantization.warnings if built.quantization else ()


def _default_output(staged: Bundle) -> Path:
    name = str(staged.manifest.model["name"]).replace(os.sep, "-")
    return cache_dir("bundles") / f"{name}-{staged.digest[:16]}"


def _key(module: BuiltModule) -> str:
    return f"{module.target.name}/{module.seq_len}"


def _notes(modules: Sequence[BuiltModule]) -> list[str]:
    return [f"{_key(module)}: {note}" for module in modules for note in module.result.notes]


def _sum_patterns(modules: Sequence[BuiltModule]) -> dict[str, int]:
    total: dict[str, int] = {}
    for module in modules:
        for name, count in module.result.patterns.items():
            total[name] = total.get(name, 0) + count
    return total
