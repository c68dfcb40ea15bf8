"""What goes into a bundle: the manifest and the files, from what was built."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from ..runtime_harness.bundle import Manifest, ModuleEntry
from ..targets import VULKAN_FEATURES
from .build import BuiltModule, ModelBuild
from .compression.description import describe
from .compression.recipe import Recipe
from .models import SourceModel
from .options import CompileOptions
from .weights import write_weights

__all__ = ["bundle_contents"]

_PACKAGES = ("iree-base-compiler", "torch-mlir", "torch", "transformers")


def bundle_contents(
    source: SourceModel,
    options: CompileOptions,
    built: ModelBuild,
    folder: Path,
    *,
    made_by: Recipe | None = None,
) -> tuple[Manifest, dict[str, bytes | Path]]:
    """The manifest and the files of the bundle; large ones as files in ``folder``. ``made_by``:
    the recipe that the model has its sizes of."""
    from safetensors.numpy import save

    weights = folder / "weights.safetensors"
    write_weights(weights, built.weights)
    files: dict[str, bytes | Path] = {"weights.safetensors": weights}
    references = {}
    for length, reference in built.references.items():
        references[str(length)] = f"reference/{length}.safetensors"
        files[references[str(length)]] = save(reference.tensors())
    entries = []
    for module in built.modules:
        entry = _entry(module, options)
        files[entry.file] = module.path
        entries.append(entry)
    tokenizer = source.tokenizer_json()
    if tokenizer is not None:
        files["tokenizer.json"] = tokenizer
    architecture = _architecture(source, options, built, made_by)
    manifest = Manifest(
        canao=importlib.metadata.version("canao"),
        model={
            "name": source.name,
            "family": source.family,
            "head": source.head,
            "trained": source.has_trained_weights,
            "pad_id": source.pad_id,
            "config": dict(source.config),
            **({"architecture": architecture} if architecture else {}),
            **({"recipe": source.recipe.to_json()} if source.recipe else {}),
            **_linalg(built),
            **({"quantization": dict(built.quantization.report)} if built.quantization else {}),
        },
        precision=options.precision,
        fusion=options.fusion,
        inputs=built.inputs,
        outputs=built.outputs,
        modules=tuple(entries),
        tokenizer=None
        if tokenizer is None
        else {
            "file": "tokenizer.json",
            "pad_id": source.pad_id,
            "max_length": source.max_length or options.seq_lens[-1],
        },
        tolerance=options.tolerance,
        vocab_size=source.vocab_size,
        reference=references,
        versions={package: importlib.metadata.version(package) for package in _PACKAGES},
    )
    return manifest, files


def _linalg(built: ModelBuild) -> dict[str, Any]:
    """By TARGET/SEQ, how many operations no kernel serves, by what they are and why."""
    found = {
        f"{module.target.name}/{module.seq_len}": dict(module.result.linalg)
        for module in built.modules
        if module.result.linalg
    }
    return {"linalg": found} if found else {}


def _architecture(
    source: SourceModel, options: CompileOptions, built: ModelBuild, made_by: Recipe | None
) -> dict[str, Any] | None:
    """What an `Architecture` says of the model; none where it was compiled in another way than
    architectures are."""
    if options.fusion != "auto" or options.drop_patterns or options.activations != "dynamic":
        return None
    return describe(
        source.module,
        seq_len=max(options.seq_lens),
        precision=options.precision,
        precisions=source.recipe,
        sizes=made_by,
        wider=built.wider,
    )


def _entry(module: BuiltModule, options: CompileOptions) -> ModuleEntry:
    target = module.target
    return ModuleEntry(
        target=target.name,
        seq_len=module.seq_len,
        batch=options.batch,
        file=f"modules/{target.name}-{module.seq_len}.vmfb",
        kind=target.kind,
        features=target.features or _vulkan_features(module, options),
        arch=target.arch,
        dispatches=len(module.result.calls),
        patterns=dict(module.result.patterns),
        calls=module.result.calls,
        parameters=module.result.parameters,
    )


def _vulkan_features(module: BuiltModule, options: CompileOptions) -> tuple[str, ...]:
    """What the precisions in a module for a GPU ask of its driver; none for a CPU."""
    if module.target.kind != "vulkan":
        return ()
    served = {kind.removeprefix("product linalg_") for kind in module.result.kernels}
    used = [p for p in VULKAN_FEATURES if p == options.precision or p in served]
    return tuple(dict.fromkeys(feature for p in used for feature in VULKAN_FEATURES[p]))
