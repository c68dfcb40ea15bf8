"""Compiling every module of a bundle: import once per length, lower once per target."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CompileError, InputError, UnsupportedError
from ..runtime_harness.bundle import TensorSpec
from ..targets import Target
from . import cache
from .compression.precisions import asked_precisions
from .idle import find_idle
from .isolation import Children, lower_isolated
from .kernels.choosing.choices import Choices, narrowed
from .kernels.choosing.tuning import choices_for, tune
from .lowering import lower, one_line
from .models import SourceModel
from .options import CompileOptions
from .parameters import materialize
from .quantization.precisions import QUANTIZED
from .reference import Reference, draw_samples, evaluate, output_shapes
from .request import LoweringRequest, LoweringResult
from .sparsity import count_blocks

if TYPE_CHECKING:
    import torch

    from .importer import ImportedModel
    from .patterns.base import Pattern
    from .quantization.plan import QuantizationPlan

__all__ = ["BuiltModule", "ModelBuild", "build_modules"]

Progress = Callable[[str], None]

# What the program that is run is called; another process has another one.
_UNIMPORTABLE = ("__main__", "__mp_main__")


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
    """Everything a bundle is written from; ``wider``: by address of a weight, its precision, where
    that is not the bundle's."""

    modules: tuple[BuiltModule, ...]
    references: Mapping[int, Reference]
    weights: Mapping[str, torch.Tensor]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    notes: tuple[str, ...] = ()
    quantization: QuantizationPlan | None = None
    wider: Mapping[int, str] = field(default_factory=dict)


def build_modules(
    source: SourceModel, options: CompileOptions, progress: Progress, *, room: float = 1.0
) -> ModelBuild:
    """Import, lower and gather. Raises what the importer and the compiler raise.

    ``room``: how much narrow layers may miss their goal by; less leaves more of them wider.
    With ``options.tune``, products that nobody measured on this machine are measured then, and
    everything is lowered again with what was found.
    """
    plan = None
    if options.precision in QUANTIZED:
        from .quantization.plan import Decision, plan_quantization

        progress("calibrating")
        wanted = Decision(
            precision=options.precision,
            seq_lens=options.seq_lens,
            batch=options.batch,
            activations=options.activations,
            cosine=options.tolerance["cosine"],
            room=room,
        )
        plan = plan_quantization(source, options.calibration, wanted)
    else:
        asked = asked_precisions(source.recipe, source.module)
        if asked.wider:
            from .quantization.plan import QuantizationPlan

            plan = QuantizationPlan(wider=asked.wider)
    if not options.tune:
        return _build(source, options, plan, progress)
    # What is missing is what nobody measured on this very CPU.
    built = _build(source, options, plan, progress, alike=False)
    notes = []
    for target in options.targets:
        results = [module.result for module in built.modules if module.target == target]
        problems = {problem for result in results for problem in result.unmeasured}
        notes += tune(problems, target, progress)
    built = _build(source, options, plan, progress)
    return dataclasses.replace(built, notes=(*notes, *built.notes))


def _build(
    source: SourceModel,
    options: CompileOptions,
    plan: QuantizationPlan | None,
    progress: Progress,
    *,
    alike: bool = True,
) -> ModelBuild:
    from .importer import import_model
    from .wrapper import make_entry

    # A module with fixed inputs has no sequence length; one entry stands for it.
    lengths = options.seq_lens if source.tokens else (1,)
    modules: list[BuiltModule] = []
    references: dict[int, Reference] = {}
    weights: dict[str, torch.Tensor] = {}
    specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]] | None = None
    # The same for every length: modules share their weights.
    choices = {target.name: choices_for(target, alike=alike) for target in options.targets}
    notes = dict.fromkeys(note for _, ignored in choices.values() for note in ignored)
    known = {name: found for name, (found, _) in choices.items()}
    for length in lengths:
        samples = draw_samples(source, length, options.batch)
        entry = make_entry(source, samples[0])
        references[length] = evaluate(entry, samples)
        progress(f"importing {source.name}" + (f" at length {length}" if source.tokens else ""))
        imported = import_model(entry, samples[0])
        if plan is not None:
            imported = plan.added_to(imported)
        for built in _lower_all(imported, plan, length, options, known, progress):
            modules.append(built)
            derivations = {d.name: d for d in built.result.derivations}
            used = materialize(built.result.parameters, imported.parameters, derivations)
            _check_sizes(used, built.target)
            _add(weights, used, length)
        if specs is None or length == lengths[-1]:
            specs = _specs(source, references[length], length)
    assert specs is not None  # there is at least one length
    return ModelBuild(
        modules=tuple(modules),
        references=references,
        weights=dict(sorted(weights.items())),
        inputs=specs[0],
        outputs=specs[1],
        notes=tuple(notes),
        quantization=plan if plan and plan.report else None,
        wider=plan.wider if plan else {},
    )


def _lower_all(
    imported: ImportedModel,
    plan: QuantizationPlan | None,
    length: int,
    options: CompileOptions,
    choices: Mapping[str, Choices],
    progress: Progress,
) -> list[BuiltModule]:
    parameters = tuple(
        (name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in imported.parameters.items()
    )
    precisions = {"f32", "bf16", options.precision} if options.precision != "f32" else {"f32"}
    precisions |= set(plan.wider.values()) if plan else set()

    children = Children()
    blocks, idle = count_blocks(imported.parameters), find_idle(imported.parameters)

    def one(target: Target) -> BuiltModule:
        _check_sizes(imported.parameters, target)
        request = LoweringRequest(
            text=imported.text,
            target=target,
            fusion=options.fusion,
            precision=options.precision,
            drop_patterns=options.drop_patterns,
            parameters=parameters,
            pattern_modules=pattern_modules(),
            patterns=_pattern_names(target, options),
            **(plan.fields(imported.parameters) if plan else {}),
            narrow_tables=options.narrow_tables,
            blocks=blocks,
            idle=idle,
            choices=narrowed(choices[target.name], precisions, (s for _, s, _ in parameters)),
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
                        children=children,
                    )
                else:
                    result = lower(request, output)
                found = cache.store(request, output, result)
        path, result = found
        return BuiltModule(
            target=target, seq_len=length, path=path, result=result, peak_bytes=peak
        )

    if not options.isolated:
        return [one(target) for target in options.targets]
    # Each module compiles in a process of its own; the compiler is mostly single-threaded.
    pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        return list(pool.map(one, options.targets))
    except BaseException:
        # The threads wait for their children, which know nothing of Ctrl-C here.
        children.stop()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def pattern_modules() -> tuple[str, ...]:
    """Modules outside canao whose patterns the compiling process must register too, in the
    order in which they came here."""
    from .patterns.registry import registered

    own = __package__ or "canao.compiler"
    names = dict.fromkeys(type(pattern).__module__ for pattern in registered())
    return tuple(n for n in names if not n.startswith(own + ".") and n not in _UNIMPORTABLE)


def _pattern_names(target: Target, options: CompileOptions) -> tuple[str, ...]:
    """The pipeline for ``target``; `InputError` where a compiling process cannot have it."""
    from .patterns.registry import ordered_names, pipeline

    chosen = pipeline(target, fusion=options.fusion, drop=options.drop_patterns)
    every: list[Pattern] = [pattern for patterns in chosen.values() for pattern in patterns]
    for pattern in every:
        if options.isolated and type(pattern).__module__ in _UNIMPORTABLE:
            raise InputError(
                f"Pattern {pattern.name!r} is defined in the program that is run, which the "
                "compiling process cannot import: move it into an importable module, or compile "
                "with isolated=False."
            )
    return ordered_names(chosen)


def _check_sizes(tensors: Mapping[str, torch.Tensor], target: Target) -> None:
    limit = target.max_storage_buffer_bytes
    if limit is None:
        return
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if size > limit:
            raise UnsupportedError(
                f"Parameter {one_line(name)!r} takes {size / 2**20:.0f} MiB, but a buffer on "
                f"{target.name} holds at most {limit / 2**20:.0f} MiB: take a smaller "
                "vocabulary, leave out the pattern that joins weights, or take another target."
            )


def _add(weights: dict[str, torch.Tensor], used: Mapping[str, torch.Tensor], length: int) -> None:
    """Add the weights of one module; all modules of a bundle read one copy."""
    for name, tensor in used.items():
        if name in weights and not _same(weights[name], tensor):
            raise CompileError(
                f"Weight {one_line(name)!r} at length {length} differs from the one of the same "
                "name at another length: compile one length a bundle, or make the model's "
                "constants independent of the length."
            )
        weights[name] = tensor


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether shapes, types and bytes agree (NaN is NaN then)."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.data_ptr() == other.data_ptr():
        return True
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def _specs(
    source: SourceModel, reference: Reference, length: int
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    first_in, first_out = reference.inputs[0], reference.outputs[0]
    inputs = tuple(
        TensorSpec(
            name=name,
            dtype=str(array.dtype),
            shape=("batch", "seq") if source.tokens else tuple(array.shape),
            limit=source.limits.get(name),
        )
        for name, array in first_in.items()
    )
    shapes = output_shapes(source, reference, length)
    outputs = tuple(
        TensorSpec(name=name, dtype=str(array.dtype), shape=shape)
        for (name, array), shape in zip(first_out.items(), shapes, strict=True)
    )
    return inputs, outputs
