"""What code whole models become on ARM: the inner loops of their linear layers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

from canao.compiler.api import compile_model
from canao.compiler.kernels.engines.registry import ENGINES

from .arm_modules import dispatch_code, innermost_loops
from .kernels.arm_counting import arm_counting

# Multiplications of one instruction.
PRODUCTS = {"sdot": 16, "smmla": 32, "bfmmla": 16}
# A product, one as a part of fused rows, one by blocks that survive: its engine with the rows and
# outputs of its block, and the inputs of a block that survives.
LINEAR = re.compile(
    r"run_(product|rows|sparse)_(?:\w*product_)?(neon\w*?)_(\d+)x(\d+)_\d+x\d+x\d+_(?:by(\d+)_)?"
)


@pytest.mark.parametrize(
    ("target", "precision", "instruction"),
    [
        ("arm64", "int8", "sdot"),
        ("arm64-i8mm", "int8", "smmla"),
        ("arm64-i8mm", "bf16", "bfmmla"),
    ],
)
def test_inner_loops_of_all_linear_layers(
    target: str, precision: str, instruction: str, tmp_path: Path
) -> None:
    report = compile_model(
        encoder(),
        target=target,
        precision=precision,
        seq_len=37,
        output=tmp_path / "bundle",
        isolated=False,
    )
    (module,) = report.bundle.manifest.modules
    code = dispatch_code(report.bundle.path / module.file)
    classify = arm_counting().classify
    kinds = []
    for call, _ in module.calls:
        loops = [Counter(map(classify, loop)) for loop in innermost_loops(code[call])]
        layer = LINEAR.match(call)
        if layer is None:
            # Attention multiplies f32 or bf16; nothing else may multiply int8.
            assert not any(loop["sdot"] + loop["smmla"] for loop in loops)
            continue
        kind, name, rows, panel, inputs = layer.groups()
        (engine,) = (one for one in ENGINES if one.name == name)
        # A round takes a whole block of rows; loops with fewer are of the last rows.
        depth = int(inputs or engine(1, 1).padded_depth(1))
        most = max(loops, key=lambda loop: loop[instruction])
        assert most[instruction] * PRODUCTS[instruction] == int(rows) * int(panel) * depth
        assert not most["fmla"]
        # Where FMLA is, norms, activations and scales are.
        others = set(PRODUCTS) - {instruction}
        assert not any(loop[other] for loop in loops for other in others)
        kinds.append(kind)
    # Q, K and V are one; then the output of attention, two of the feed-forward and the pooler.
    assert Counter(kinds) == {"rows": 3, "sparse": 1, "product": 1}
    assert not report.linalg[f"{target}/37"]


def encoder() -> torch.nn.Module:
    """A BERT of one layer, with weights of which one block in eight survives."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = tf.BertModel(
            tf.BertConfig(
                vocab_size=99,
                hidden_size=64,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=160,
                max_position_embeddings=40,
            )
        )
    places = np.add.outer(np.arange(10), np.arange(16)) % 8 == 0
    with torch.no_grad():
        weight = model.encoder.layer[0].intermediate.dense.weight
        weight *= torch.from_numpy(places.repeat(16, axis=0).repeat(4, axis=1))
    return model.eval()
