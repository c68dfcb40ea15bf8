"""The commands that do a study again."""

from __future__ import annotations

import shlex
from typing import Any

from .folder import StudyFolder
from .result import StudyResult

__all__ = ["commands_of"]


def commands_of(folder: StudyFolder, result: StudyResult | None) -> list[str]:
    """The search, then the chosen model's measurements. A storage of its own is left out: there
    the study would only be found again."""
    plan, asked = folder.plan, folder.asked
    given = plan.specification
    line = ["canao", "search", str(asked["model"]), "--data", str(asked["data"])]
    for device in plan.devices:
        line += ["--device", device]
    if given.latency_ms is not None:
        line += ["--latency", f"{given.latency_ms:g}ms"]
    if given.memory_bytes is not None:
        line += ["--memory", f"{given.memory_bytes}B"]
    if given.max_loss is not None:
        line += ["--max-loss", f"{given.max_loss:g}%"]
    options: dict[str, Any] = {
        "trials": folder.trials,
        "controller": plan.controller,
        "seed": plan.seed,
        "finalists": plan.finalists,
        "target": plan.target,
        "threads": plan.threads,
        **{name: asked[name] for name in ("teacher", "predictor", "dev", "split", "metric")},
    }
    for name, value in options.items():
        if value is not None:
            line += [f"--{name}", str(value)]
    # The space and the training options as they were, whatever became of their files.
    line += ["--space", "space.json", "--training", "training.json", "-o", "STUDY"]
    found = [
        "# space.json and training.json: the fields space and options of the plan below",
        shlex.join(line),
    ]
    best = None if result is None else result.best
    if best is not None:
        length = best["architecture"]["seq_len"]
        bundle = str(folder.path / "best.canao")
        found += [
            shlex.join(["canao", "bench", bundle, "--device", plan.devices[0]])
            + f" --threads {plan.threads}",
            shlex.join(
                ["canao", "eval", bundle, "--data", str(asked["dev"] or asked["data"])]
                + ["--split", str(asked["split"]), "--device", plan.devices[0]]
                + ["--seq-len", str(length)]
                + ([] if asked["metric"] is None else ["--metric", str(asked["metric"])])
            ),
        ]
    return found
