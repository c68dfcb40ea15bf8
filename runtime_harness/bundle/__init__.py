"""Bundles: a compiled model with its weights, references and manifest, in one place.

A bundle is a directory, or one zip file whose name ends in ``.canao``:

| file | holds |
| --- | --- |
| ``manifest.json`` | what is inside, how it was made, and every other file's SHA-256 |
| ``modules/TARGET-LENGTH.vmfb`` | the compiled module for a target and sequence length |
| ``weights.safetensors`` | the weights, one copy, shared by all modules |
| ``reference/LENGTH.safetensors`` | inputs and the uncompiled model's outputs for them |
| ``tokenizer.json`` | optional |

Beside it, never inside, lies ``<bundle>.numerics.json``: what was measured of each module's
numbers, per target.

``write_bundle`` replaces a bundle at one stroke or not at all, and gives the same bytes for the
same content. ``Bundle.open`` trusts nothing: whatever is wrong with a bundle becomes one
BundleError that says what, and what to do. Neither copies the weights into memory; a zip
file's members are stored, aligned to 64 bytes, and mapped where they lie. Nothing in a bundle
is ever executed by opening it, and no format that could be (pickle) is in it. The hashes find
damage and exchanged files; they do not say who made the bundle.
"""

from __future__ import annotations

from .manifest import SCHEMA, Manifest
from .module_entry import ModuleEntry
from .numerics import Numerics, numerics_path
from .reader import Bundle
from .tensor_spec import DTYPES, TensorSpec
from .writer import SUFFIX, check_destination, write_bundle

__all__ = [
    "DTYPES",
    "SCHEMA",
    "SUFFIX",
    "Bundle",
    "Manifest",
    "ModuleEntry",
    "Numerics",
    "TensorSpec",
    "check_destination",
    "numerics_path",
    "write_bundle",
]
