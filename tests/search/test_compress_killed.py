"""A training that is stopped, at whatever moment, goes on to the very same result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from canao.errors import NumericsError
from canao.search.compress_result import CompressionResult
from canao.search.training import callbacks, student, workshop
from canao.search.training.checkpoints import last_checkpoint, read_mark
from tests.search.compressing import QUICK, STRUCTURE, make_place, run, weights

# All that has a state: movement, simulated int8, a learned projection, dropout.
RECIPE = {
    **STRUCTURE,
    "hidden": 16,
    "default_precision": "int8",
    "sparsity": [{"match": "*.intermediate.dense.weight", "block": [4, 16], "density": 0.5}],
}
OPTIONS = {
    "evaluations_per_epoch": 3,
    "sparsity_method": "movement",
    "sparsity_every": 1,
    "quantize_from": 0.3,
    "sparse_at": 0.4,
}


class Stop(BaseException):
    """As a kill: nobody catches it, and what was not written is not there."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("killed"))


def compress(place: Path, output: str, cache: Path, **options: Any) -> CompressionResult:
    """In a cache of its own, in bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANAO_CACHE_DIR", str(cache))
        recipe = options.pop("recipe", RECIPE)
        return run(place, output, recipe, **{**OPTIONS, "bf16": True, **options})


def stop_at(moment: str) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if moment in text:
            raise Stop(text)

    return tell


@pytest.fixture(scope="module")
def taught(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the teacher in it."""
    cache = tmp_path_factory.mktemp("taught")
    with pytest.raises(Stop):
        compress(place, "never", cache, progress=stop_at("what matters in the teacher"))
    return cache


@pytest.fixture(scope="module")
def whole(
    place: Path, taught: Path, tmp_path_factory: pytest.TempPathFactory
) -> CompressionResult:
    cache = tmp_path_factory.mktemp("cache") / "whole"
    return compress(place, "whole", shutil.copytree(taught, cache))


def same(found: CompressionResult, whole: CompressionResult) -> None:
    for name in ("model.safetensors", "masks.safetensors", "canao.json"):
        assert (found.output / name).read_bytes() == (whole.output / name).read_bytes(), name
    assert found.after == whole.after
    one, other = ({**each.training["student"], "seconds": 0} for each in (found, whole))
    assert one == other
    assert one["terms"]


def nothing(patch: pytest.MonkeyPatch) -> None:
    """Only the progress stops it."""


def while_saving(patch: pytest.MonkeyPatch) -> None:
    """All of the first checkpoint is written but the mark."""

    def stop(*_: Any) -> None:
        raise Stop

    patch.setattr(callbacks, "mark_whole", stop)


def while_deleting(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint later than the best one goes, and has lost one of its files."""
    real = shutil.rmtree

    def stop(path: Any, *arguments: Any, **keywords: Any) -> None:
        optimizer = Path(path) / "optimizer.pt"
        if optimizer.parent.name == "checkpoint-8" and optimizer.is_file():
            optimizer.unlink()
            raise Stop
        real(path, *arguments, **keywords)

    patch.setattr(shutil, "rmtree", stop)


def before_the_result(patch: pytest.MonkeyPatch) -> None:
    """The finished model is there, its result is not."""

    def stop(*_: Any) -> None:
        raise Stop

    patch.setattr(workshop, "replace_file", stop)


@pytest.mark.parametrize(
    ("moment", "prepare"),
    [
        ("teacher: step 3 ", nothing),
        ("student: asking the teacher", nothing),
        ("never", while_saving),
        ("student: step 5 ", nothing),
        ("never", while_deleting),
        ("student: evaluating", nothing),
        ("never", before_the_result),
    ],
)
def test_a_stopped_call_goes_on_to_the_very_same_result(
    moment: str,
    prepare: Callable[[pytest.MonkeyPatch], None],
    place: Path,
    taught: Path,
    whole: CompressionResult,
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    if not moment.startswith("teacher"):
        shutil.copytree(taught, cache)
    output = str(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        with pytest.raises(Stop):
            compress(place, output, cache, progress=stop_at(moment))
    assert not Path(output).exists()
    marks = [read_mark(path.parent) for path in cache.rglob("whole.json")]
    found = compress(place, output, cache)
    same(found, whole)
    spent = max((mark["seconds"] for mark in marks), default=0)
    assert found.training["student"]["seconds"] > spent
    assert not list(cache.glob("training/*/checkpoints/*"))  # needed no more


KILLED = """
import json, os, signal, sys, torch
import canao
place, recipe, options, *jobs = sys.argv[1:]
torch.set_num_threads(2)
for job in jobs:
    cache, output, moment = job.split(",")
    os.environ["CANAO_CACHE_DIR"] = cache
    def tell(text):
        if moment in text:
            os.kill(os.getpid(), signal.SIGKILL)
        print(output, text)
    result = canao.compress(place + "/base", data=place + "/data", recipe=json.loads(recipe),
                            output=output, options=json.loads(options), progress=tell)
    with open(output + ".json", "w") as file:
        json.dump(result.to_json(), file)
"""


def test_a_killed_call_goes_on_to_the_very_same_weights(place: Path, tmp_path: Path) -> None:
    """Killed by the system, on two threads and in bf16, as trainings are where they can."""
    options = {**QUICK, **OPTIONS, "bf16": True}
    given = [str(place), json.dumps(RECIPE), json.dumps(options)]

    def call(*jobs: tuple[str, str, str]) -> subprocess.CompletedProcess[str]:
        texts = [f"{tmp_path / cache},{tmp_path / out},{moment}" for cache, out, moment in jobs]
        # Threads that wait asleep: others may have the cores.
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
        command = [sys.executable, "-c", KILLED, *given, *texts]
        return subprocess.run(
            command, env=environment, capture_output=True, check=False, text=True
        )

    killed = call(("killed", "resumed", "student: step 9 "))
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "resumed").exists()
    assert list(tmp_path.glob("killed/training/*/checkpoints/checkpoint-*/whole.json"))
    ended = call(("killed", "resumed", "never"), ("other", "whole", "never"))
    assert ended.returncode == 0, ended.stderr
    seen = [line for line in ended.stdout.splitlines() if "resumed " in line]
    assert not any("teacher: step" in line for line in seen)
    # (Of the student: a dense one is trained after it.)
    assert not any("resumed student: step 1 " in line for line in seen)
    assert any("resumed student: step" in line for line in seen)
    found, whole = (
        CompressionResult.from_json(json.loads((tmp_path / f"{name}.json").read_text()))
        for name in ("resumed", "whole")
    )
    same(found, whole)


def test_the_last_good_checkpoint_stays_where_the_loss_is_not_finite(
    place: Path, taught: Path, whole: CompressionResult, tmp_path: Path
) -> None:
    cache = shutil.copytree(taught, tmp_path / "cache")
    real, calls = student.task_loss, iter(range(1, 100))

    def poisoned(*arguments: Any) -> torch.Tensor:
        return real(*arguments) * (torch.nan if next(calls) == 7 else 1.0)

    output = str(tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "task_loss", poisoned)
        with pytest.raises(NumericsError, match=r"step 7: the loss.*checkpoint-6\)"):
            compress(place, output, cache)
    (folder,) = cache.glob("training/*/checkpoints")
    kept = last_checkpoint(folder)
    assert kept is not None
    assert kept.name == "checkpoint-6"
    tensors = load_file(kept / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    same(compress(place, output, cache), whole)


def test_training_stops_early_when_it_gets_no_better_and_counts_over_calls(
    place: Path, taught: Path, tmp_path: Path
) -> None:
    """A rate at which nothing moves: the first evaluation is the best, two more end it."""
    options = {
        **{"recipe": STRUCTURE, "learning_rate": 1e-30, "weight_decay": 0, "patience": 2},
        **{"evaluations_per_epoch": 2, "epochs": 6},
    }
    found = []
    for moment in ("never", "student: step 7 ", "student: evaluating"):
        cache = shutil.copytree(taught, tmp_path / f"cache {moment}")
        if moment != "never":
            with pytest.raises(Stop):
                compress(place, "early", cache, progress=stop_at(moment), **options)
        result = compress(place, f"early {moment}", cache, **options)
        report = result.training["student"]
        assert (report["steps"], report["planned_steps"]) == (9, 36)
        assert [step for step, _ in report["curve"]] == [3, 6, 9]
        assert report["best_step"] == 3
        found.append((weights(result.output), report["curve"]))
    assert found[0] == found[1] == found[2]
