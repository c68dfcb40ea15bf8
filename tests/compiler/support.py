"""Lowering and running small models inside a test, without a bundle around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from iree import runtime as rt

from canao import targets
from canao.compiler.idle import find_idle
from canao.compiler.importer import ImportedModel, import_model
from canao.compiler.lowering import lower
from canao.compiler.models import SourceModel, from_module
from canao.compiler.parameters import materialize
from canao.compiler.patterns.registry import pipeline
from canao.compiler.request import LoweringRequest, LoweringResult
from canao.compiler.sparsity import count_blocks
from canao.compiler.wrapper import Entry, boundary, make_entry
from canao.targets import Target

Arrays = list[np.ndarray[Any, Any]]


class Five(torch.nn.Module):
    """Five modules side by side, each with an input of its own: five cases in one compilation."""

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(modules)

    def forward(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        c: torch.Tensor,
        d: torch.Tensor,
        e: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        return tuple(part(x) for part, x in zip(self.parts, (a, b, c, d, e), strict=True))


class FiveMasked(Five):
    """The same with a mask for each."""

    def forward(  # type: ignore[override]
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        c: torch.Tensor,
        d: torch.Tensor,
        e: torch.Tensor,
        mask_a: torch.Tensor,
        mask_b: torch.Tensor,
        mask_c: torch.Tensor,
        mask_d: torch.Tensor,
        mask_e: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        masks = (mask_a, mask_b, mask_c, mask_d, mask_e)
        inputs = (a, b, c, d, e)
        return tuple(
            part(x, mask) for part, x, mask in zip(self.parts, inputs, masks, strict=True)
        )


def token_inputs(source: SourceModel, length: int, real: int) -> tuple[torch.Tensor, ...]:
    """One row of drawn tokens of which the last ``length - real`` are padding."""
    generator = torch.Generator().manual_seed(7)
    low = source.pad_id + 1
    ids = torch.randint(
        low, source.vocab_size, (1, length), generator=generator, dtype=torch.int32
    )
    mask = torch.ones_like(ids)
    ids[:, real:], mask[:, real:] = source.pad_id, 0
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return tuple(every[name] for name in source.input_names)


def imported(
    module: torch.nn.Module, inputs: Sequence[torch.Tensor] | None = None, length: int = 12
) -> tuple[ImportedModel, Entry, tuple[torch.Tensor, ...]]:
    """``module`` as IR with the inputs it was imported for."""
    source = from_module(module, inputs)
    if inputs is not None:
        given = tuple(boundary(tensor) for tensor in inputs)
    else:
        given = token_inputs(source, length, length - 3)
    entry = make_entry(source, given)
    return import_model(entry, given), entry, given


def request_for(
    model: ImportedModel, target: str | Target = "host", **options: Any
) -> LoweringRequest:
    """A lowering request for an imported model."""
    return LoweringRequest(
        text=model.text,
        target=target if isinstance(target, Target) else targets.get(target),
        parameters=tuple(
            (name, tuple(tensor.shape), "float32") for name, tensor in model.parameters.items()
        ),
        **{
            "blocks": count_blocks(model.parameters),
            "idle": find_idle(model.parameters),
            **options,
        },
    )


def lower_and_run(
    model: ImportedModel,
    inputs: Sequence[torch.Tensor],
    folder: Path,
    *,
    patterns: Mapping[Any, Any] | None = None,
    **options: Any,
) -> tuple[Arrays, LoweringResult]:
    """Compile for this machine, run in this process; outputs in order, and the result."""
    path = folder / "module.vmfb"
    result = lower(request_for(model, **options), path, patterns=patterns)
    derivations = {d.name: d for d in result.derivations}
    weights = materialize(result.parameters, model.parameters, derivations)
    return run(path.read_bytes(), weights, [tensor.numpy() for tensor in inputs]), result


def run(program: bytes, weights: Mapping[str, torch.Tensor], inputs: Arrays) -> Arrays:
    """Call ``main`` of a host module on one thread."""
    index = rt.ParameterIndex()
    for name, tensor in weights.items():
        index.add_buffer(name, tensor.contiguous().view(torch.uint8).numpy().tobytes())
    instance = rt.VmInstance()
    device = rt.get_device("local-sync")
    modules = [
        rt.create_io_parameters_module(instance, index.create_provider("model")),
        rt.create_hal_module(instance, device),
        rt.VmModule.copy_buffer(instance, program),
    ]
    context = rt.VmContext(instance, modules)
    function = rt.FunctionInvoker(context, device, modules[-1].lookup_function("main"))
    outputs = function(*inputs)
    listed = outputs if isinstance(outputs, tuple) else (outputs,)
    return [np.asarray(output.to_host()).copy() for output in listed]


def default_pipeline(target: str = "host") -> dict[Any, list[Any]]:
    """The patterns that run for a target, by stage, as lists to change."""
    return {stage: list(found) for stage, found in pipeline(targets.get(target)).items()}


def relative_error(found: Arrays, expected: Sequence[torch.Tensor]) -> float:
    """The largest absolute error over the largest absolute reference, over all outputs."""
    errors = []
    for one, other in zip(found, expected, strict=True):
        reference = other.detach().numpy()
        assert one.shape == reference.shape
        errors.append(np.abs(one - reference).max() / max(np.abs(reference).max(), 1e-30))
    return float(max(errors))
