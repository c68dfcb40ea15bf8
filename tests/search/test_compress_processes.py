"""Two processes train together: as one would, to one result, and all stop where one must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.search.compressing import QUICK, STRUCTURE, make_place, run
from tests.search.support import save_model

# Rows in whole batches, no dropout, losses that are means over rows: two halves of a batch then
# have the gradient of the whole.
OPTIONS = {
    **QUICK,
    "holdout": 1 / 6,
    "dropout": 0.0,
    "hidden_weight": 0.0,
    "relation_weight": 0.0,
    "evaluations_per_epoch": 2,
}

# What every process does. The first call is the command line's own; then a call is stopped after
# its first checkpoint and gone on with; then one of the processes has a loss that is not finite.
CALLS = """
import json, sys
from pathlib import Path
import torch
import canao
from canao.cli import main
from canao.errors import NumericsError
from canao.search.training import callbacks, student
from canao.search.training.workshop import is_first
place, options = Path(sys.argv[1]), json.loads(sys.argv[2])

def call(output, **changes):
    return canao.compress(place / "trained", data=place / "data", recipe=place / "recipe.json",
                          output=place / output, options={**options, **changes})

sys.argv = ["canao", "compress", str(place / "trained"), "--data", str(place / "data"), "--recipe",
            str(place / "recipe.json"), "--training", str(place / "training.json"),
            "-o", str(place / "two"), "--json"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code

class Stop(BaseException):
    pass

def stop(self, args, state, control, **_):
    if state.global_step == 4:
        raise Stop

told, callbacks.Progress.on_step_end = callbacks.Progress.on_step_end, stop
try:
    call("stopped", seed=1)
    raise AssertionError("not stopped")
except Stop:
    callbacks.Progress.on_step_end = told
resumed = call("stopped", seed=1)
assert resumed.training["student"]["processes"] == 2

loss = student.task_loss
student.task_loss = lambda *a: loss(*a) * (1.0 if is_first() else torch.nan)
try:
    call("never", seed=2)
    said = "nothing"
except NumericsError as error:
    said = str(error)
(place / f"said-{int(is_first())}").write_text(said)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two processes did what `CALLS` says."""
    folder = make_place(tmp_path_factory.mktemp("processes"))
    save_model(folder / "trained", "sequence-classification")
    (folder / "recipe.json").write_text(json.dumps(STRUCTURE))
    (folder / "training.json").write_text(json.dumps(OPTIONS))
    (folder / "calls.py").write_text(CALLS)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CANAO_CACHE_DIR": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run(
        [sys.executable, *launch, folder / "calls.py", folder, json.dumps(OPTIONS)],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    (folder / "stdout").write_text(ended.stdout)
    return folder


def close(one: Path, other: Path) -> None:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    for name, tensor in ours.items():
        if "key.bias" in name:  # softmax does without it: its gradient is rounding alone
            continue
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


def test_two_processes_train_as_one_would(place: Path) -> None:
    answer: dict[str, Any] = json.loads((place / "stdout").read_text())  # one of them answers
    student = answer["training"]["student"]
    assert student["processes"] == 2
    alone = run(place, "one", STRUCTURE, model="trained", **OPTIONS)
    report = alone.training["student"]
    assert student["steps"] == report["steps"] == 10
    assert [step for step, _ in student["curve"]] == [step for step, _ in report["curve"]]
    close(place / "two", place / "one")


def test_two_processes_go_on_where_they_were_stopped(place: Path) -> None:
    run(place, "one-1", STRUCTURE, model="trained", **OPTIONS, seed=1)
    close(place / "stopped", place / "one-1")
    assert not list(place.glob("cache/training/*/checkpoints/*/rng_state.pth"))


def test_a_loss_of_one_process_that_is_not_finite_stops_both(place: Path) -> None:
    for number in (0, 1):
        said = (place / f"said-{number}").read_text()
        assert "stopped at step 1: the loss is NaN or infinite" in said
    assert not (place / "never").exists()
