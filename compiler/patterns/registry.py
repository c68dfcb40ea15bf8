"""Patterns by name, and the pipeline: which patterns run, in which order.

A package outside canao adds a pattern by calling `register` from a module named in its
entry-point group ``canao.patterns``; it then runs after canao's own of the same stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points

from ...errors import InputError
from ...targets import Target
from .base import Pattern, Stage
from .bind_parameters import BindParameters
from .byte_storage import ByteStorage
from .cut_hidden import CutHidden
from .decompose_attention import DecomposeAttention
from .emit_kernels import EmitKernels
from .fuse_qkv import FuseQKV
from .fuse_rows import FuseRows
from .gather_lines import GatherLines
from .kernel_attention import KernelAttention
from .kernel_embedding import KernelEmbedding
from .kernel_layer_norm import KernelLayerNorm
from .kernel_linear import KernelLinear
from .linear_of_addmm import LinearOfAddmm
from .narrow_integers import NarrowIntegers
from .narrow_linear import NarrowLinear
from .quantize_embeddings import QuantizeEmbeddings
from .quantize_linear import QuantizeLinear
from .single_queue import SingleQueue
from .sparse_linear import SparseLinear
from .split_heads import SplitHeads
from .strip_checks import StripChecks
from .strip_copies import StripCopies

__all__ = [
    "ENTRY_POINT_GROUP",
    "PIPELINE",
    "names",
    "ordered_names",
    "pipeline",
    "register",
    "registered",
]

ENTRY_POINT_GROUP = "canao.patterns"

# In the order in which they run. The comment says why each stands where it stands.
PIPELINE: list[Pattern] = [
    # -- torch: operations as the model wrote them ---------------------------------------------
    # Checks that torch.export leaves behind have no lowering and no meaning for static shapes.
    StripChecks(),
    # Dropout's copies would stand between an operation and its neighbours.
    StripCopies(),
    # What reads linear layers sees GPT-2's too.
    LinearOfAddmm(),
    # Smaller products first: what follows sees only what is left of a layer.
    CutHidden(),
    # What is left of idle lines has other readers or another producer.
    GatherLines(),
    # Joins projections while a linear layer is still one operation with named weights.
    FuseQKV(),
    # While attention is still one operation, on slices of the joined projection.
    KernelAttention(),
    # Reads the slices that the joined projection leaves behind.
    SplitHeads(),
    # Takes attention apart before IREE turns it into its own loop over keys.
    DecomposeAttention(),
    # Reads a table by name.
    QuantizeEmbeddings(),
    # Takes look-ups as they are now, and what a linear layer might take as its residual.
    KernelEmbedding(),
    # After everything that reads linear layers: it takes them, and what follows them, away.
    KernelLinear(),
    # The same for a GPU, where only sparse products are kernels.
    SparseLinear(),
    # What no kernel took, in the precision that is asked for.
    QuantizeLinear(),
    NarrowLinear(),
    KernelLayerNorm(),
    # When every kernel is planned, each can write the forms that its readers want.
    EmitKernels(),
    # Calls are written, and who reads what is known.
    FuseRows(),
    # Last at this stage: the patterns above read and write parameters by name.
    BindParameters(),
    # -- linalg: loops over tensors ------------------------------------------------------------
    # Needs every integer in sight, so it follows the lowering of the torch dialect.
    NarrowIntegers(),
    # -- dispatch: work as it is submitted ---------------------------------------------------
    # Affinities are complete once dispatches are formed.
    SingleQueue(),
    # The device is declared, and no code is generated for it yet.
    ByteStorage(),
]

_STAGES: tuple[Stage, ...] = ("torch", "linalg", "dispatch")
_loaded = False


def register(pattern: Pattern) -> None:
    """Append ``pattern`` to the pipeline. Raises `InputError` where the name is taken."""
    if any(known.name == pattern.name for known in PIPELINE):
        raise InputError(
            f"There is a pattern {pattern.name!r} already: give the new one another name."
        )
    PIPELINE.append(pattern)


def registered() -> tuple[Pattern, ...]:
    """Every registered pattern, in order."""
    _load()
    return tuple(PIPELINE)


def names() -> tuple[str, ...]:
    """The name of every registered pattern, in order."""
    return tuple(pattern.name for pattern in registered())


def ordered_names(chosen: Mapping[Stage, Sequence[Pattern]]) -> tuple[str, ...]:
    """The names of a `pipeline`, in the order in which its patterns run."""
    return tuple(pattern.name for stage in _STAGES for pattern in chosen.get(stage, ()))


def pipeline(
    target: Target, *, fusion: str = "auto", drop: Sequence[str] = ()
) -> dict[Stage, list[Pattern]]:
    """The patterns for one compilation, by stage.

    ``fusion`` other than ``auto`` keeps only the required ones, ``none`` the product path too.
    Raises `InputError` where ``drop`` names an unknown or a required pattern, or where the order
    breaks an ``after``.
    """
    _load()
    known = {pattern.name: pattern for pattern in PIPELINE}
    for name in drop:
        if name not in known:
            raise InputError(f"There is no pattern {name!r} to drop: {', '.join(known)}.")
        if known[name].required:
            raise InputError(
                f"Pattern {name!r} cannot be dropped: without it nothing compiles for this target."
            )
    chosen: dict[Stage, list[Pattern]] = {stage: [] for stage in _STAGES}
    for pattern in PIPELINE:
        kept = fusion == "auto" or (fusion == "none" and pattern.product_path)
        wanted = pattern.required or (kept and pattern.name not in drop)
        if wanted and pattern.applies_to(target):
            chosen[pattern.stage].append(pattern)
    _check_order(chosen.values())
    return chosen


def _check_order(stages: Iterable[list[Pattern]]) -> None:
    for patterns in stages:
        position = {pattern.name: index for index, pattern in enumerate(patterns)}
        for pattern in patterns:
            for earlier in pattern.after:
                if position.get(earlier, -1) > position[pattern.name]:
                    raise InputError(f"Pattern {pattern.name!r} must run after {earlier!r}.")


def _load() -> None:
    global _loaded
    if not _loaded:
        _loaded = True
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            entry.load()
