"""The reference inputs and outputs that a bundle carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from .feeds import TOKEN_IDS
from .tensors import numpy_dtype, shape_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, ModuleEntry

__all__ = ["Sample", "example_inputs", "load_reference"]

_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One reference input with the outputs the uncompiled model gave for it, by name."""

    name: str
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]


def load_reference(bundle: Bundle, seq_len: int) -> tuple[Sample, ...]:
    """Return the samples for a sequence length, ordered by name; none if there is no reference.

    The tensors are named ``<sample>/in/<input>`` and ``<sample>/out/<output>``. Raises
    BundleError if the file cannot be read, or a tensor is named otherwise or is not the
    model's.
    """
    file = bundle.manifest.reference.get(str(seq_len))
    if file is None:
        return ()
    where = f"{file} of {bundle.path}"
    tensors = _read(bundle, file, where)
    sides: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
    known = {
        "in": {spec.name for spec in bundle.manifest.inputs},
        "out": {spec.name for spec in bundle.manifest.outputs},
    }
    for key, array in tensors.items():
        sample, side, name = ["", "", *key.rsplit("/", 2)][-3:]
        if not sample or name not in known.get(side, ()):
            raise BundleError(f"{where} holds the tensor {key!r}, which is not the model's")
        sides.setdefault(sample, {"in": {}, "out": {}})[side][name] = array
    samples = []
    for name, parts in sorted(sides.items()):
        if not parts["in"] or parts["out"].keys() != known["out"]:
            raise BundleError(f"{where}: the sample {name!r} lacks inputs or outputs")
        samples.append(Sample(name=name, inputs=parts["in"], outputs=parts["out"]))
    return tuple(samples)


def _read(bundle: Bundle, file: str, where: str) -> dict[str, NDArray[Any]]:
    import safetensors.numpy
    from safetensors import SafetensorError

    try:
        tensors: dict[str, NDArray[Any]] = safetensors.numpy.load(bytes(bundle.read(file)))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{where} cannot be read as safetensors: {error}") from error
    return tensors


def example_inputs(bundle: Bundle, module: ModuleEntry) -> dict[str, NDArray[Any]]:
    """Return inputs of the module's static shapes: the first reference sample, or made-up ones.

    Made-up are token ids at random, ones for other integers and masks, and normal numbers for
    the rest, always the same.
    """
    import numpy as np

    for sample in load_reference(bundle, module.seq_len):
        if all(
            spec.name in sample.inputs
            and sample.inputs[spec.name].shape == shape_of(spec, module)
            and sample.inputs[spec.name].dtype == numpy_dtype(spec.dtype)
            for spec in bundle.manifest.inputs
        ):
            return {spec.name: sample.inputs[spec.name] for spec in bundle.manifest.inputs}
    random = np.random.default_rng(_SEED)
    inputs: dict[str, NDArray[Any]] = {}
    for spec in bundle.manifest.inputs:
        shape, dtype = shape_of(spec, module), numpy_dtype(spec.dtype)
        values: NDArray[Any]
        if spec.name == TOKEN_IDS:
            values = random.integers(0, bundle.manifest.vocab_size or 1, shape)
        elif dtype.kind in "biu" or "mask" in spec.name:
            values = np.ones(shape, np.int64)
        else:
            values = random.standard_normal(shape)
        inputs[spec.name] = values.astype(dtype)
    return inputs
