"""Deciding how a model becomes narrow: smoothing, ranges, rounding, and what stays wider.

Everything here happens in PyTorch, before the model is imported, and leaves the model as it is.
The result names the weights it is about; what is compiled from it is exactly what was simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ...runtime_harness.environment import cpu_count
from ..compression.precisions import asked_precisions, widest
from ..models import SourceModel
from ..wrapper import make_entry
from .fake import FakeLinear, Rows, bf16_rows, fake_rows, fake_weight, symmetric_rows
from .grids import nearest
from .judge import Goals, Judge, wide_sites
from .precisions import WEIGHT_BITS, WIDER, Activations
from .rounding import rounded_for
from .samples import Tokenized, samples_for, tokenized
from .sites import Inputs, Site, matrix_of, observe
from .smoothing import smoothing_for
from .static import StaticRows, range_for
from .tables import LEAST_TABLE
from .texts import BUILT_IN, Text
from .warnings import doubts

if TYPE_CHECKING:
    from ..importer import ImportedModel

__all__ = ["Decision", "QuantizationPlan", "plan_quantization"]

# A site being rounded holds some ten matrices of its size.
_MOST_WORKERS = 4

# Fewer texts than these say too little of what a model reads.
_FEW = 16

# Weights beyond this size are rounded to nearest: a vocabulary's would take minutes.
_MOST_ROUNDED = 1 << 23
# So are weights of more inputs: what is known of those grows with the square of their number.
_DEEPEST_ROUNDED = 1 << 13

# Of the multiply-adds, the share that may stay wider: 4 bits may become 8 everywhere.
_MOST_WIDE = {"int8": 0.2, "int8-weights": 0.2, "int4-weights": 1.0}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a caller asks for: one of `QUANTIZED`, for ``seq_lens`` (ascending) and ``batch``;
    int8's ``activations`` (see `options.ACTIVATIONS`); the ``cosine`` that a bundle must have;
    ``room``, as for `Goals.above`."""

    precision: str = "int8"
    seq_lens: tuple[int, ...] = (1,)
    batch: int = 1
    activations: Activations = "dynamic"
    cosine: float = 0.998
    room: float = 1.0

    def rows_for(self, rows: torch.Tensor, weights: Sequence[torch.Tensor]) -> Rows:
        """How activations like ``rows`` are quantised before they meet ``weights``."""
        if self.precision in WEIGHT_BITS:
            return bf16_rows
        if self.activations == "static":
            return StaticRows(range_for(rows, weights))
        return symmetric_rows if self.activations == "symmetric" else fake_rows


@dataclass(frozen=True, kw_only=True)
class QuantizationPlan:
    """``tensors``: parameters beside the model's own. ``rounded``: by the address of a weight,
    the names of its rounded form and of its smoothing vector (or ""). ``ranges``: by address, the
    name of its activations' range, where that is static. ``symmetric``: whether ranges of rows
    are. ``wider``: by address, a precision. ``report`` says in JSON values what was found and
    decided.
    """

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    rounded: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    ranges: Mapping[int, str] = field(default_factory=dict)
    symmetric: bool = False
    wider: Mapping[int, str] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def added_to(self, imported: ImportedModel) -> ImportedModel:
        """The model with this plan's parameters beside its own."""
        return replace(imported, parameters={**imported.parameters, **self.tensors})

    def fields(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """``rounded``, ``ranges``, ``symmetric`` and ``wider`` of a lowering request for a model
        with these parameters."""
        rounded, ranges, wider = [], [], []
        for name, tensor in parameters.items():
            if tensor.data_ptr() in self.rounded:
                rounded.append((name, *self.rounded[tensor.data_ptr()]))
            if tensor.data_ptr() in self.ranges:
                ranges.append((name, self.ranges[tensor.data_ptr()]))
            if tensor.data_ptr() in self.wider:
                wider.append((name, self.wider[tensor.data_ptr()]))
        return {
            "rounded": tuple(rounded),
            "ranges": tuple(ranges),
            "symmetric": self.symmetric,
            "wider": tuple(wider),
        }


def plan_quantization(
    source: SourceModel, texts: Sequence[Text] | None, wanted: Decision
) -> QuantizationPlan:
    """How ``source`` becomes what is ``wanted``, calibrated with ``texts`` or, where None, with
    our own.

    Raises `InputError` where texts were given and the model has no tokenizer.
    """
    threads = torch.get_num_threads()
    try:
        # Sums in one order, so that the same model gives the same bundle anywhere.
        torch.set_num_threads(1)
        return _plan(source, texts, wanted)
    finally:
        torch.set_num_threads(threads)


def _plan(source: SourceModel, texts: Sequence[Text] | None, wanted: Decision) -> QuantizationPlan:
    own = tokenized(source, BUILT_IN) if source.tokens and source.tokenizer_json() else None
    given = tokenized(source, texts) if texts is not None else own
    samples = samples_for(
        source,
        [*(given.inputs if given else ()), *_filling(given, own)],
        wanted.seq_lens,
        wanted.batch,
    )
    entry = make_entry(source, samples.fit[0])
    sites = observe(entry, samples.fit)
    warnings = doubts(entry, given, own) if texts is not None else ()
    asked = _asked(source, sites)
    sites = [site for site in sites if site not in asked]
    fakes = _of_each(sites, partial(_fakes, wanted=wanted, trained=source.has_trained_weights))
    narrow_tables = asked_precisions(source.recipe, source.module).tables is not False
    tables = {
        module: fake_weight(module.weight.detach())
        for module in source.module.modules()
        if isinstance(module, torch.nn.Embedding)
        and module.weight.numel() >= LEAST_TABLE
        and narrow_tables
    }
    wider = WIDER[wanted.precision]
    less = replace(wanted, precision=wider) if wider in WEIGHT_BITS else None
    wide_fakes = _of_each(
        sites,
        partial(_fakes, wanted=less, trained=source.has_trained_weights) if less else _as_bf16,
    )
    judge = Judge(entry, samples, fakes, tables, wide_fakes)
    goals = Goals.above(wanted.cosine, wanted.room)
    wide, found = wide_sites(judge, sites, goals, _MOST_WIDE[wanted.precision])
    kept = [site for site in sites if site not in wide]
    named = _named({**fakes, **{site: wide_fakes[site] if less else () for site in wide}})
    return QuantizationPlan(
        **named,
        symmetric=wanted.activations == "symmetric",
        wider={
            linear.weight.data_ptr(): precision
            for site, precision in {**asked, **dict.fromkeys(wide, wider)}.items()
            for linear in site.linears.values()
        },
        report={
            "precision": wanted.precision,
            "activations": "exact" if wanted.precision in WEIGHT_BITS else wanted.activations,
            "ranges": {
                name.removeprefix("range(")[:-1]: [float(end) for end in named["tensors"][name]]
                for name in named["tensors"]
                if name.startswith("range(")
            },
            "calibration": "texts" if texts is not None else "built in" if own else "random",
            "simulated_cosine": {"texts": found.texts, "random": found.drawn},
            "wider": [name for site in wide for name in site.linears],
            "asked": {name: wide for site, wide in asked.items() for name in site.linears},
            "smoothed": sum(fakes[site][0].smoothing is not None for site in kept),
        },
        warnings=(*warnings, *_much_wide(wide, sites, wanted)),
    )


def _of_each(
    sites: Sequence[Site], make: Callable[[Site], list[FakeLinear]]
) -> dict[Site, list[FakeLinear]]:
    """``make`` of every site, several at once. No sum is split among threads: the numbers do not
    depend on how many there are."""

    @torch.no_grad()
    def alone(site: Site) -> list[FakeLinear]:
        torch.set_num_threads(1)
        return make(site)

    with ThreadPoolExecutor(max_workers=min(cpu_count(), _MOST_WORKERS)) as pool:
        return dict(zip(sites, pool.map(alone, sites), strict=True))


def _much_wide(wide: Sequence[Site], sites: Sequence[Site], wanted: Decision) -> tuple[str, ...]:
    share = sum(site.multiply_adds for site in wide) / max(1, sum(s.multiply_adds for s in sites))
    if share <= _MOST_WIDE["int8"]:
        return ()
    return (
        f"{share:.0%} of the multiply-adds stay in {WIDER[wanted.precision]}, because the model "
        f"does not keep a cosine of {wanted.cosine} in {wanted.precision} with fewer.",
    )


def _asked(source: SourceModel, sites: Sequence[Site]) -> dict[Site, str]:
    """Sites that a recipe wants in another precision: the widest that it says of their layers,
    which may be joined to one."""
    named = asked_precisions(source.recipe, source.module).wider
    found: dict[Site, str] = {}
    for site in sites:
        weights = (linear.weight.data_ptr() for linear in site.linears.values())
        precisions = [named[weight] for weight in weights if weight in named]
        if precisions:
            found[site] = widest(precisions)
    return found


def _filling(given: Tokenized | None, own: Tokenized | None) -> Sequence[Inputs]:
    """Our own texts, where the caller's are few."""
    if given is None or own is None or given is own or len(given.inputs) >= _FEW:
        return ()
    return own.inputs


def _fakes(site: Site, wanted: Decision, *, trained: bool) -> list[FakeLinear]:
    """Each linear layer of a site as it will be computed."""
    weights = [matrix_of(linear) for linear in site.linears.values()]
    bits = WEIGHT_BITS.get(wanted.precision, 8)
    vector, rows = None, site.rows
    if wanted.precision not in WEIGHT_BITS:
        vector = smoothing_for(rows, weights, wanted.rows_for)
    if vector is not None:
        weights, rows = [weight / vector for weight in weights], rows * vector
    quantised = wanted.rows_for(rows, weights)
    few = sum(weight.numel() for weight in weights) <= _MOST_ROUNDED
    if trained and few and weights[0].shape[1] <= _DEEPEST_ROUNDED:
        joined = rounded_for(torch.cat(weights), rows, bits)
        weights = list(torch.split(joined, [len(weight) for weight in weights]))
    else:
        weights = [nearest(weight, bits) for weight in weights]
    return [FakeLinear(weight, vector, quantised) for weight in weights]


def _as_bf16(site: Site) -> list[FakeLinear]:
    """Each linear layer of a site that stays as wide as bf16."""
    return [FakeLinear(matrix_of(one), None, bf16_rows) for one in site.linears.values()]


def _named(fakes: Mapping[Site, Sequence[FakeLinear]]) -> dict[str, Any]:
    tensors: dict[str, torch.Tensor] = {}
    rounded: dict[int, tuple[str, str]] = {}
    ranges: dict[int, str] = {}
    for site, computed in fakes.items():
        # Of what stays as wide as bf16 nothing is stored.
        for (name, linear), fake in zip(site.linears.items(), computed, strict=False):
            vector = ""
            if fake.smoothing is not None:
                vector = f"smoothing({site.name})"
                tensors[vector] = fake.smoothing
            tensors[f"rounded({name})"] = fake.weight
            rounded[linear.weight.data_ptr()] = (f"rounded({name})", vector)
            if isinstance(fake.rows, StaticRows):
                range_ = f"range({site.name})"
                tensors[range_] = fake.rows.range
                ranges[linear.weight.data_ptr()] = range_
    return {"tensors": tensors, "rounded": rounded, "ranges": ranges}
