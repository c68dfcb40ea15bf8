"""Deciding how a model becomes int8: smoothing, rounding, and what stays wider.

Everything here happens in PyTorch, before the model is imported, and leaves the model as it is.
The result names the weights it is about; what is compiled from it is exactly what was simulated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...errors import InputError
from ..models import SourceModel
from ..wrapper import Entry, make_entry
from .fake import FakeLinear, fake_weight, replaced
from .rounding import rounded_for
from .samples import Samples, samples_for, tokenized
from .sites import Inputs, Site, observe
from .smoothing import smoothing_for
from .tables import LEAST_TABLE
from .texts import BUILT_IN, Text
from .warnings import doubts

__all__ = ["QuantizationPlan", "plan_quantization"]

GOAL = 0.999
"""The simulated cosine similarity that is aimed at, above what a bundle must have."""

MOST_WIDE = 0.2
"""The share of the multiply-adds that may stay wider."""

# Weights beyond this size are rounded to nearest: a vocabulary's would take minutes.
_MOST_ROUNDED = 1 << 23


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """``tensors``: parameters beside the model's own. ``rounded``: by the address of a weight,
    the names of its rounded form and of its smoothing vector (or ""). ``wider``: by address,
    a precision. ``cosine`` is the least that the simulation found.
    """

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    rounded: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    wider: Mapping[int, str] = field(default_factory=dict)
    cosine: float = 1.0
    report: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def fields(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """``rounded`` and ``wider`` of a lowering request for a model with these parameters."""
        rounded, wider = [], []
        for name, tensor in parameters.items():
            if tensor.data_ptr() in self.rounded:
                rounded.append((name, *self.rounded[tensor.data_ptr()]))
            if tensor.data_ptr() in self.wider:
                wider.append((name, self.wider[tensor.data_ptr()]))
        return {"rounded": tuple(rounded), "wider": tuple(wider)}


def plan_quantization(source: SourceModel, texts: Sequence[Text] | None) -> QuantizationPlan:
    """How ``source`` becomes int8, calibrated with ``texts`` or, where None, with our own.

    Raises `InputError` where a weight is NaN or infinite, or where texts were given and the
    model has no tokenizer.
    """
    threads = torch.get_num_threads()
    try:
        # Sums in one order, so that the same model gives the same bundle anywhere.
        torch.set_num_threads(1)
        return _plan(source, texts)
    finally:
        torch.set_num_threads(threads)


def _plan(source: SourceModel, texts: Sequence[Text] | None) -> QuantizationPlan:
    _check_weights(source.module)
    own = tokenized(source, BUILT_IN) if source.tokens and source.tokenizer_json() else None
    given = tokenized(source, texts) if texts is not None else own
    samples = samples_for(source, given)
    entry = make_entry(source, samples.fit[0])
    sites = observe(entry, samples.fit)
    warnings = doubts(entry, sites, given, own) if texts is not None else ()
    fakes = {site: _fakes(site, trained=source.has_trained_weights) for site in sites}
    tables = {
        module: fake_weight(module.weight.detach())
        for module in source.module.modules()
        if isinstance(module, torch.nn.Embedding) and module.weight.numel() >= LEAST_TABLE
    }
    judge = _Judge(entry, samples, fakes, tables)
    wide, cosine = _wide_sites(judge, sites)
    kept = [site for site in sites if site not in wide]
    return QuantizationPlan(
        **_named(kept, fakes),
        wider={
            linear.weight.data_ptr(): "bf16" for site in wide for linear in site.linears.values()
        },
        cosine=cosine,
        report={
            "calibration": "texts" if texts is not None else "built in" if own else "random",
            "simulated_cosine": cosine,
            "wider": [name for site in wide for name in site.linears],
            "smoothed": sum(fakes[site][0].smoothing is not None for site in kept),
        },
        warnings=warnings,
    )


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
        weights = list(joined.split([len(weight) for weight in weights]))
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


class _Judge:
    """Runs the model with some of its sites quantised, and compares."""

    def __init__(
        self,
        entry: Entry,
        samples: Samples,
        fakes: Mapping[Site, Sequence[FakeLinear]],
        tables: Mapping[torch.nn.Embedding, torch.Tensor],
    ) -> None:
        self._entry, self._samples = entry, samples
        self._fakes, self._tables = fakes, tables
        self._exact = [self._run(sample) for sample in samples.check]

    def cosine(self, sites: Sequence[Site], *, tables: bool = True) -> float:
        """The least cosine similarity of an output, where these sites are quantised."""
        linears = {
            linear: fake
            for site in sites
            for linear, fake in zip(site.linears.values(), self._fakes[site], strict=True)
        }
        with replaced(linears, self._tables if tables else {}):
            found = [self._run(sample) for sample in self._samples.check]
        return min(
            (
                _cosine(one, other)
                for ones, others in zip(found, self._exact, strict=True)
                for one, other in zip(ones, others, strict=True)
            ),
            default=1.0,
        )

    def _run(self, sample: Inputs) -> list[torch.Tensor]:
        with torch.no_grad():
            results = self._entry(*sample)
        return [result for result in results if result.is_floating_point()]


def _wide_sites(judge: _Judge, sites: Sequence[Site]) -> tuple[list[Site], float]:
    """The sites whose quantisation alone costs most, as few as the goal needs; the cosine."""
    cosine = judge.cosine(sites)
    if cosine >= GOAL:
        return [], cosine
    alone = {site: judge.cosine([site], tables=False) for site in sites}
    total = sum(site.multiply_adds for site in sites)
    wide: list[Site] = []
    spent = 0
    for site in sorted(sites, key=lambda site: alone[site]):
        if spent + site.multiply_adds > MOST_WIDE * total:
            continue
        spent += site.multiply_adds
        wide.append(site)
        cosine = judge.cosine([other for other in sites if other not in wide])
        if cosine >= GOAL:
            break
    return wide, cosine


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    a, b = one.flatten().double(), other.flatten().double()
    sizes = float(a.norm()) * float(b.norm())
    value = float(a @ b) / sizes if sizes else float(not (a.any() or b.any()))
    return value if math.isfinite(value) else -1.0
