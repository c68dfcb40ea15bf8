"""How good a model is on a data set: in PyTorch, or compiled and on a device.

Both ways make the same features and decode the same outputs (`canao.search.tasks`); they differ
in what runs the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import InputError
from .data import Row, load_split
from .evaluation_result import Evaluation
from .evaluation_running import evaluate_with, refuse_unlabelled
from .tasks import Task, model_label_names, task_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..runtime_harness.bundle import Bundle

__all__ = ["Evaluation", "evaluate", "evaluate_model"]


def evaluate(
    model_or_bundle: str | os.PathLike[str] | Bundle,
    data: str | os.PathLike[str],
    *,
    split: str = "dev",
    device: str = "local",
    metric: str | None = None,
    seq_len: int | None = None,
    limit: int | None = None,
    batch_size: int = 32,
    bf16: bool = False,
    target: str | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Evaluate a model in PyTorch, or a bundle on a device.

    ``model_or_bundle`` is a bundle (a `Bundle`, a ``.canao`` file, a directory with a manifest)
    or what ``load_model`` takes; ``data`` and ``split`` are as for `load_split`, of which the
    first ``limit`` rows are taken. ``metric`` is the primary metric if not the data's own.
    ``seq_len`` is the longest sequence (default 128, 192 for questions, or what the model
    allows). ``bf16`` runs PyTorch under bfloat16 autocast; ``threads`` is the number of CPU
    threads (default: 1 for a bundle, else torch's own); ``target`` and ``timeout`` (seconds a
    call) are for bundles. ``seed`` draws the interval.

    Raises InputError for a wrong call or wrong data, NumericsError for outputs that are not
    finite, and DeviceError where the device fails.
    """
    options: dict[str, Any] = {
        "metric": metric,
        "seq_len": seq_len,
        "limit": limit,
        "batch_size": batch_size,
        "seed": seed,
        "progress": progress,
    }
    if _is_bundle(model_or_bundle):
        if bf16:
            raise InputError("A bundle has the precision that it was compiled in: leave bf16 out.")
        from .evaluation_bundle import evaluate_bundle

        return evaluate_bundle(
            model_or_bundle,
            data,
            split,
            device=device,
            target=target,
            threads=threads,
            timeout=timeout,
            **options,
        )
    name = os.fspath(cast("str | os.PathLike[str]", model_or_bundle))
    if device != "local" or target is not None or timeout is not None:
        raise InputError(
            f"{name} is no bundle, so it runs in PyTorch here: compile it ('canao compile') to "
            "evaluate it on a device."
        )
    return _evaluate_source(name, data, split, bf16=bf16, threads=threads, **options)


def _is_bundle(given: Any) -> bool:
    from ..runtime_harness.bundle import Bundle

    if isinstance(given, Bundle):
        return True
    if not isinstance(given, (str, os.PathLike)):
        raise InputError(
            f"A {type(given).__name__} is no model by name and no bundle: for a live module, call "
            "evaluate_model."
        )
    path = Path(given)
    return path.suffix == ".canao" or (path / "manifest.json").is_file()


def _evaluate_source(
    model: str,
    data: str | os.PathLike[str],
    split: str,
    *,
    metric: str | None,
    limit: int | None,
    **options: Any,
) -> Evaluation:
    from ..compiler.models import load_model
    from .evaluation_pytorch import tokenizer_of

    source = load_model(model)
    names = model_label_names(source.config)
    found = load_split(data, split, label_names=names)
    refuse_unlabelled(found, source.head)
    module: Any = source.module
    task = task_for(
        found,
        head=source.head,
        num_labels=getattr(module.config, "num_labels", None),
        label_names=names,
        metric=metric,
    )
    return evaluate_model(
        module,
        tokenizer_of(source),
        task,
        found.first(limit).rows,
        name=source.name,
        data=found.name,
        split=split,
        max_length=source.max_length,
        **options,
    )


def evaluate_model(
    model: Any,
    tokenizer: Any,
    task: Task,
    rows: Sequence[Row],
    *,
    seq_len: int | None = None,
    batch_size: int = 32,
    bf16: bool = False,
    threads: int | None = None,
    seed: int = 0,
    name: str = "model",
    data: str = "",
    split: str = "",
    max_length: int | None = None,
    progress: Callable[[str], None] | None = None,
    scored: Callable[[NDArray[Any]], object] | None = None,
) -> Evaluation:
    """Evaluate a live model of transformers, on the device where its weights are.

    It runs in evaluation mode and is left in the mode that it was in. ``tokenizer`` is what
    `TextEncoder` takes; ``max_length`` is what the model allows where the caller knows it.
    ``scored`` is told what the metrics are made of, float64 [rows, columns]. For the rest see
    `evaluate`.
    """
    from .evaluation_pytorch import model_runner

    num_labels = getattr(model.config, "num_labels", 0)
    task.check_model(num_labels, rows, name)
    with model_runner(model, bf16=bf16, threads=threads, max_length=max_length) as runner:
        return evaluate_with(
            runner,
            tokenizer,
            task,
            rows,
            seq_len=seq_len,
            batch_size=batch_size,
            seed=seed,
            model=name,
            data=data,
            split=split,
            progress=progress,
            scored=scored,
        )
