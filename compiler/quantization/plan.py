"""Deciding how a model becomes int8: smoothing, rounding, and what stays wider.

Everything here happens in PyTorch, before the model is imported, and leaves the model as it is.
The result names the weights it is about; what is compiled from it is exactly what was simulated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from ...errors import InputError
from ..models import SourceModel
from ..wrapper import make_entry
from .fake import FakeLinear, fake_weight
from .judge import Judge, wide_sites
from .rounding import rounded_for
from .samples import Tokenized, samples_for, tokenized
from .sites import Inputs, Site, observe
from .smoothing import smoothing_for
from .tables import LEAST_TABLE
from .texts import BUILT_IN, Text
from .warnings import doubts

if TYPE_CHECKING:
    from ..importer import ImportedModel

__all__ = ["QuantizationPlan", "plan_quantization"]

# Fewer texts than these say too little of what a model reads.
_FEW = 16

# Weights beyond this size are rounded to nearest: a vocabulary's would take minutes.
_MOST_ROUNDED = 1 << 23


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """``tensors``: parameters beside the model's own. ``rounded``: by the address of a weight,
    the names of its rounded form and of its smoothing vector (or ""). ``wider``: by address,
    a precision. ``report`` says in JSON values what was found and decided.
    """

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    rounded: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    wider: Mapping[int, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def added_to(self, imported: ImportedModel) -> ImportedModel:
        """The model with this plan's parameters beside its own."""
        return replace(imported, parameters={**imported.parameters, **self.tensors})

    def fields(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """``rounded`` and ``wider`` of a lowering request for a model with these parameters."""
        rounded, wider = [], []
        for name, tensor in parameters.items():
            if tensor.data_ptr() in self.rounded:
                rounded.append((name, *self.rounded[tensor.data_ptr()]))
            if tensor.data_ptr() in self.wider:
                wider.append((name, self.wider[tensor.data_ptr()]))
        return {"rounded": tuple(rounded), "wider": tuple(wider)}


def plan_quantization(
    source: SourceModel, texts: Sequence[Text] | None, *, longest: int
) -> QuantizationPlan:
    """How ``source`` becomes int8, calibrated with ``texts`` or, where None, with our own.

    ``longest`` is the longest sequence that it is compiled for.

    Raises `InputError` where a weight is NaN or infinite, or where texts were given and the
    model has no tokenizer.
    """
    threads = torch.get_num_threads()
    try:
        # Sums in one order, so that the same model gives the same bundle anywhere.
        torch.set_num_threads(1)
        return _plan(source, texts, longest)
    finally:
        torch.set_num_threads(threads)


def _plan(source: SourceModel, texts: Sequence[Text] | None, longest: int) -> QuantizationPlan:
    _check_weights(source.module)
    own = tokenized(source, BUILT_IN) if source.tokens and source.tokenizer_json() else None
    given = tokenized(source, texts) if texts is not None else own
    samples = samples_for(
        source, [*(given.inputs if given else ()), *_filling(given, own)], longest
    )
    entry = make_entry(source, samples.fit[0])
    sites = observe(entry, samples.fit)
    warnings = doubts(entry, sites, given, own) if texts is not None else ()
    fakes = {site: _fakes(site, trained=source.has_trained_weights) for site in sites}
    tables = {
        module: fake_weight(module.weight.detach())
        for module in source.module.modules()
        if isinstance(module, torch.nn.Embedding) and module.weight.numel() >= LEAST_TABLE
    }
    judge = Judge(entry, samples, fakes, tables)
    wide, found = wide_sites(judge, sites)
    kept = [site for site in sites if site not in wide]
    return QuantizationPlan(
        **_named(kept, fakes),
        wider={
            linear.weight.data_ptr(): "bf16" for site in wide for linear in site.linears.values()
        },
        report={
            "calibration": "texts" if texts is not None else "built in" if own else "random",
            "simulated_cosine": {"texts": found.texts, "random": found.drawn},
            "wider": [name for site in wide for name in site.linears],
            "smoothed": sum(fakes[site][0].smoothing is not None for site in kept),
        },
        warnings=warnings,
    )


def _filling(given: Tokenized | None, own: Tokenized | None) -> Sequence[Inputs]:
    """Our own texts, where the caller's are few."""
    if given is None or own is None or given is own or len(given.inputs) >= _FEW:
        return ()
    return own.inputs


def _check_weights(module: torch.nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise InputError(
                f"Parameter {name!r} holds NaN or infinity, which int8 has no code for: "
                "check the model's weights."
            )


def _fakes(site: Site, *, trained: bool) -> list[FakeLinear]:
    """Each linear layer of a site as it will be computed."""
    weights = [linear.weight.detach() for linear in site.linears.values()]
    vector = smoothing_for(site.rows, weights)
    rows = site.rows
    if vector is not None:
        weights, rows = [weight / vector for weight in weights], rows * vector
    if trained and sum(weight.numel() for weight in weights) <= _MOST_ROUNDED:
        joined = rounded_for(torch.cat(weights), rows)
        weights = list(torch.split(joined, [len(weight) for weight in weights]))
    else:
        weights = [fake_weight(weight) for weight in weights]
    return [FakeLinear(weight, vector) for weight in weights]


def _named(sites: Sequence[Site], fakes: Mapping[Site, Sequence[FakeLinear]]) -> dict[str, Any]:
    tensors: dict[str, torch.Tensor] = {}
    rounded: dict[int, tuple[str, str]] = {}
    for site in sites:
        for (name, linear), fake in zip(site.linears.items(), fakes[site], strict=True):
            vector = ""
            if fake.smoothing is not None:
                vector = f"smoothing({site.name})"
                tensors[vector] = fake.smoothing
            tensors[f"rounded({name})"] = fake.weight
            rounded[linear.weight.data_ptr()] = (f"rounded({name})", vector)
    return {"tensors": tensors, "rounded": rounded}
