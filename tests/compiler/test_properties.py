"""Drawn encoders and inputs: compiled equals eager, and padding never changes real positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st

import canao
from canao.compiler.api import compile_model

from ..profiles import compiling

ATOL = 1e-4


@st.composite
def encoders(draw: Any) -> torch.nn.Module:
    """A small encoder: family, depth, heads, widths, activation, vocabulary all drawn."""
    heads = draw(st.integers(1, 4))
    width = heads * draw(st.sampled_from([4, 8, 16, 20]))
    common = {
        "vocab_size": draw(st.integers(8, 200)),
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    depth, inner = draw(st.integers(1, 3)), draw(st.integers(1, 96))
    activation = draw(st.sampled_from(["gelu", "relu", "gelu_new", "silu"]))
    family = draw(st.sampled_from(["bert", "distilbert", "roberta", "electra"]))
    if family == "distilbert":
        activation = draw(st.sampled_from(["gelu", "relu"]))
        config: Any = tf.DistilBertConfig(
            **common,
            dim=width,
            n_heads=heads,
            n_layers=depth,
            hidden_dim=inner,
            activation=activation,
        )
    else:
        kind = {"bert": tf.BertConfig, "roberta": tf.RobertaConfig, "electra": tf.ElectraConfig}
        config = kind[family](
            **common,
            hidden_size=width,
            num_attention_heads=heads,
            num_hidden_layers=depth,
            intermediate_size=inner,
            hidden_act=activation,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 2**16)))
        return tf.AutoModel.from_config(config).eval()


@compiling()
@given(data=st.data(), module=encoders(), seq_len=st.integers(1, 40))
def test_compiled_equals_eager(
    data: Any, module: torch.nn.Module, seq_len: int, tmp_path_factory: Any
) -> None:
    output = tmp_path_factory.mktemp("drawn") / "bundle"
    # Raises NumericsError by itself where the stored references differ, padded ones included.
    report = compile_model(module, seq_len=seq_len, output=output)
    vocabulary = module.config.vocab_size
    length = data.draw(st.integers(1, seq_len), label="length")
    rows = data.draw(st.integers(1, 3), label="rows")
    seed = data.draw(st.integers(0, 2**16), label="seed")
    ids = np.random.default_rng(seed).integers(1, vocabulary, (rows, length), dtype=np.int32)
    with canao.load(report.bundle) as session:
        found = session(input_ids=ids)
        # More padding, the same real positions.
        wider = np.pad(ids, ((0, 0), (0, seq_len - length)))
        mask = np.pad(np.ones_like(ids), ((0, 0), (0, seq_len - length)))
        padded = session(input_ids=wider, attention_mask=mask)
    with torch.no_grad():
        expected = module(input_ids=torch.from_numpy(ids)).last_hidden_state.numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found["last_hidden_state"], expected, atol=ATOL * scale)
    np.testing.assert_allclose(
        padded["last_hidden_state"][:, :length], expected, atol=ATOL * scale
    )
