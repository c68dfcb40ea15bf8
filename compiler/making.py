"""From a model to a bundle that was verified, with as many narrow layers as it can bear.

A simulation chooses which layers stay wider. It is not what a device does to the last bit, and
with few outputs other roundings may cost twice as much: where what was compiled misses its cosine,
more layers stay wider, and it is compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import NumericsError
from ..runtime_harness.bundle import Bundle, Manifest, Numerics, write_bundle
from .build import ModelBuild, build_modules
from .compression.recipe import Recipe
from .contents import bundle_contents
from .models import SourceModel
from .options import CompileOptions
from .quantization.precisions import QUANTIZED
from .verification import verify_targets

__all__ = ["Made", "make"]

# What narrow layers may miss their goal by, of what they may at first.
_ROOMS = (1.0, 0.5, 0.25)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a bundle is written from, staged and verified."""

    built: ModelBuild
    manifest: Manifest
    files: Mapping[str, bytes | Path]
    staged: Bundle
    numerics: Mapping[str, Numerics | None]
    warnings: tuple[str, ...]


def make(
    source: SourceModel,
    options: CompileOptions,
    folder: Path,
    tell: Callable[[str], None],
    *,
    made_by: Recipe | None = None,
) -> Made:
    """Build and verify in ``folder``; ``made_by`` as for `bundle_contents`.

    Raises what building does, and `NumericsError` where a module is wrong.
    """
    missed: NumericsError | None = None
    before: ModelBuild | None = None
    for place, room in enumerate(_ROOMS if options.precision in QUANTIZED else _ROOMS[:1]):
        built = build_modules(source, options, tell, room=room)
        if before is not None:
            if built.wider.keys() == before.wider.keys():
                continue
            tell(f"{len(built.wider)} weights stay wider, not {len(before.wider)}: {missed}")
        before = built
        own = folder / str(place)
        own.mkdir()
        manifest, files = bundle_contents(source, options, built, own, made_by=made_by)
        staged = write_bundle(own / "staged", manifest, files)
        try:
            numerics, warnings = verify_targets(staged, options.targets, tell)
        except NumericsError as error:
            missed = error
            continue
        return Made(
            built=built,
            manifest=manifest,
            files=files,
            staged=staged,
            numerics=numerics,
            warnings=warnings,
        )
    assert missed is not None
    raise missed
