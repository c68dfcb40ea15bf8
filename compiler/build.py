"""Compiling every module of a bundle: import once per length, lower once per target."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnsupportedError
from ..runtime_harness.bundle import TensorSpec
from ..targets import Target
from . import cache
from .isolation import lower_isolated
from .lowering import LoweringRequest, LoweringResult, lower
from .models import SourceModel
from .options import CompileOptions
from .parameters import Derivation, materialize
from .reference import Reference, draw_samples, evaluate, output_shapes

if TYPE_CHECKING:
    import torch

    from .importer import ImportedModel

__all__ = ["BuiltModule", "ModelBuild", "build_modules"]

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BuiltModule:
    """One compiled module and what is known of it; ``peak_bytes`` is 0 where it was cached."""

    target: Target
    seq_len: int
    path: Path
    result: LoweringResult
    peak_bytes: int


@dataclass(frozen=True, kw_only=True)
class ModelBuild:
    """Everything a bundle is written from."""

    modules: tuple[BuiltModule, ...]
    references: Mapping[int, Reference]
    weights: Mapping[str, torch.Tensor]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def build_modules(source: SourceModel, options: CompileOptions, progress: Progress) -> ModelBuild:
    """Import, lower and gather. Raises what the importer and the compiler raise."""
    from .importer import import_model
    from .wrapper import make_entry

    # A module with fixed inputs has no sequence length; one entry stands for it.
    lengths = options.seq_lens if source.tokens else (1,)
    modules: list[BuiltModule] = []
    references: dict[int, Reference] = {}
    weights: dict[str, torch.Tensor] = {}
    specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None = None
    for length in lengths:
        samples = draw_samples(source, length, options.batch)
        entry = make_entry(source, samples[0])
        references[length] = evaluate(entry, samples)
        progress(f"importing {source.name}" + (f" at length {length}" if source.tokens else ""))
        imported = import_model(entry, samples[0])
        for built in _lower_all(imported, length, options, progress):
            modules.append(built)
            derivations = {n: Derivation(n, s, axis) for n, s, axis in built.result.derivations}
            used = materialize(built.result.parameters, imported.parameters, derivations)
            weights.update(used)
        if specs is None or length == lengths[-1]:
            specs = _specs(source, references[length], length)
    assert specs is not None  # there is at least one length
    return ModelBuild(
        modules=tuple(modules),
        references=references,
        weights=dict(sorted(weights.items())),
        inputs=specs[0],
        outputs=specs[1],
    )


def _lower_all(
    imported: ImportedModel, length: int, options: CompileOptions, progress: Progress
) -> list[BuiltModule]:
    parameters = tuple(
        (name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in imported.parameters.items()
    )

    def one(target: Target) -> BuiltModule:
        _check_sizes(imported, target)
        request = LoweringRequest(
            text=imported.text,
            target=target,
            fusion=options.fusion,
            precision=options.precision,
            drop_patterns=options.drop_patterns,
            parameters=parameters,
            pattern_modules=pattern_modules(),
        )
        found = cache.fetch(request)
        peak = 0
        if found is None:
            progress(f"compiling for {target.name} at length {length}")
            with tempfile.TemporaryDirectory(prefix="canao-") as folder:
                output = Path(folder) / "module.vmfb"
                if options.isolated:
                    result, peak = lower_isolated(
                        request,
                        output,
                        timeout=options.timeout,
                        memory_limit=options.memory_limit,
                    )
                else:
                    result = lower(request, output)
                found = cache.store(request, output, result)
        path, result = found
        return BuiltModule(
            target=target, seq_len=length, path=path, result=result, peak_bytes=peak
        )

    # Each module compiles in a process of its own; the compiler is mostly single-threaded.
    workers = (os.cpu_count() or 1) if options.isolated else 1
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(one, options.targets))


def pattern_modules() -> tuple[str, ...]:
    """Modules outside canao whose patterns the compiling process must register too."""
    from .patterns.registry import registered

    own = __package__ or "canao.compiler"
    names = {type(pattern).__module__ for pattern in registered()}
    return tuple(sorted(name for name in names if not name.startswith(own + ".")))


def _check_sizes(imported: ImportedModel, target: Target) -> None:
    limit = target.max_storage_buffer_bytes
    if limit is None:
        return
    for name, tensor in imported.parameters.items():
        size = tensor.numel() * tensor.element_size()
        if size > limit:
            raise UnsupportedError(
                f"Parameter {name!r} takes {size / 2**20:.0f} MiB, but a buffer on "
                f"{target.name} holds at most {limit / 2**20:.0f} MiB: take a smaller "
                "vocabulary or another target."
            )


def _specs(
    source: SourceModel, reference: Reference, length: int
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    first_in, first_out = reference.inputs[0], reference.outputs[0]
    inputs = tuple(
        TensorSpec(
            name=name,
            dtype=str(array.dtype),
            shape=("batch", "seq") if source.tokens else tuple(array.shape),
        )
        for name, array in first_in.items()
    )
    shapes = output_shapes(source, reference, length)
    outputs = tuple(
        TensorSpec(name=name, dtype=str(array.dtype), shape=shape)
        for (name, array), shape in zip(first_out.items(), shapes, strict=True)
    )
    return inputs, outputs
