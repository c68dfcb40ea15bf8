"""A whole search on a tiny BERT, as small as it can be: real compiling, training and measuring.

Only what decides how long the steps take is smaller: a measurement's rounds, and how often one
that is not stable is taken again. A predictor of this machine that promises next to nothing holds
for whatever is measured, so that three models calibrate.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import canao
from canao.runtime_harness import contest
from canao.runtime_harness.workload import reference_bundle
from canao.search.predictor.predictor import LatencyPredictor
from canao.search.predictor.recordings import shipped
from canao.search.predictor.records import Setting
from canao.search.space.choices import MatrixChoices
from canao.search.space.space import ArchitectureSpace
from canao.search.study import bench
from canao.search.study.result import StudyResult
from tests.search.support import save_model, sentences, write_rows

__all__ = ["OPTIONS", "SPACE", "prepare", "quickly", "search"]

_WIDE = 1000.0

OPTIONS = {
    "epochs": 1,
    "teacher_epochs": 1,
    "batch_size": 8,
    "teacher_batch_size": 8,
    "seq_len": 16,
    "importance_rows": 16,
    "bf16": False,
}
_F32 = MatrixChoices(precisions=("f32",))
SPACE = ArchitectureSpace(
    layers=(1,),
    hidden=(32,),
    heads=(2,),
    ffn=(16, 32, 48),
    head_size=16,
    qkv=_F32,
    output=_F32,
    up=_F32,
    down=_F32,
    seq_lens=(16,),
    vocabularies=(99,),
    positions=64,
)


def prepare(folder: Path) -> Path:
    """A model with a head, its data, files of a space and of options, and a predictor."""
    save_model(folder / "model", "sequence-classification")
    draw = random.Random(0)
    for name, count in (("train", 48), ("dev", 20)):
        rows = [
            {"text": f"{draw.choice(sentences)} the {('river', 'bridge')[n % 2]}", "label": n % 2}
            for n in range(count)
        ]
        write_rows(folder / "data" / f"{name}.jsonl.gz", rows)
    (folder / "space.json").write_text(json.dumps(SPACE.to_json()), encoding="utf-8")
    (folder / "training.json").write_text(json.dumps(OPTIONS), encoding="utf-8")
    found = canao.bench(reference_bundle())
    here = Setting(
        device=found.device,
        fingerprint=found.fingerprint,
        emulated=found.emulated,
        threads=found.threads,
        target="host",
        protocol=found.protocol,
    )
    known = LatencyPredictor.fit(shipped()[:30])
    dataclasses.replace(known, setting=here, reach=_WIDE).save(folder / "predictor.json")
    return folder


def quickly(patch: pytest.MonkeyPatch) -> None:
    """Have measurements be short, and taken once."""
    torch.set_num_threads(1)
    plan = dataclasses.replace(contest.REAL, rounds=4, starts=1, turn_ms=5, reference_ms=5)
    patch.setattr(contest, "REAL", plan)
    patch.setattr(bench, "_TRIES", 1)


def search(folder: Path, output: Path, **options: Any) -> StudyResult:
    """Two trials and one finalist, of what `prepare` made."""
    given: dict[str, Any] = {
        "data": folder / "data",
        "space": folder / "space.json",
        "options": folder / "training.json",
        "predictor": folder / "predictor.json",
        "trials": 2,
        "finalists": 1,
    }
    return canao.optimize(folder / "model", output=output, **{**given, **options})
