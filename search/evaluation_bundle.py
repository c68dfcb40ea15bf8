"""Running a bundle through a session on a device; needs neither torch nor a compiler."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import BundleError, InputError
from .data import load_split
from .evaluation_result import Evaluation
from .evaluation_running import Runner, evaluate_with, refuse_unlabelled
from .tasks import model_label_names, task_for

if TYPE_CHECKING:
    from ..runtime_harness.bundle import Bundle

__all__ = ["evaluate_bundle"]


def evaluate_bundle(
    bundle: Bundle | str | os.PathLike[str],
    data: str | os.PathLike[str],
    split: str,
    *,
    device: str,
    target: str | None,
    threads: int | None,
    timeout: float | None,
    metric: str | None,
    seq_len: int | None,
    limit: int | None,
    batch_size: int,
    seed: int,
    progress: Callable[[str], None] | None,
) -> Evaluation:
    """Evaluate a bundle; see `canao.search.evaluation.evaluate`.

    Sequences run at the shortest compiled length that holds them.
    """
    from ..runtime_harness.devices import get
    from ..runtime_harness.selection import open_bundle

    opened = open_bundle(bundle)
    described = opened.manifest.model
    config = described.get("config") or {}
    names = model_label_names(config)
    found = load_split(data, split, label_names=names)
    refuse_unlabelled(found, str(described.get("head")))
    outputs = {spec.name: spec.shape for spec in opened.manifest.outputs}
    classes = _last(outputs.get("logits"))
    task = task_for(
        found,
        head=str(described.get("head")),
        num_labels=classes,
        label_names=names,
        metric=metric,
    )
    rows = found.first(limit).rows
    task.check_model(classes or 0, rows, str(described.get("name")))
    tokenizer = _tokenizer(opened)
    place = get(device)
    with place.session(
        opened, target=target, threads=1 if threads is None else threads, timeout=timeout
    ) as session:
        runner = Runner(
            run=lambda arrays: session(**arrays),
            inputs=tuple(spec.name for spec in opened.manifest.inputs),
            pad_id=int((opened.manifest.tokenizer or {}).get("pad_id", 0)),
            max_length=session.seq_lens[-1],
            backend="bundle",
            device=device,
            precision=opened.manifest.precision,
            borders=session.seq_lens,
            target=session.target,
            emulated=place.info().emulated,
        )
        return evaluate_with(
            runner,
            tokenizer,
            task,
            rows,
            seq_len=seq_len,
            batch_size=batch_size,
            seed=seed,
            model=str(described.get("name")),
            data=found.name,
            split=split,
            progress=progress,
        )


def _last(shape: Any) -> int | None:
    return shape[-1] if shape and isinstance(shape[-1], int) else None


def _tokenizer(bundle: Bundle) -> str:
    described = bundle.manifest.tokenizer
    if described is None:
        raise InputError(
            f"{bundle.path} carries no tokenizer: compile it from a directory that has one."
        )
    try:
        return bytes(bundle.read(described["file"])).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{bundle.path}: its tokenizer is not text in UTF-8.") from error
