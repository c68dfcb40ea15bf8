"""A tiny model of every family that canao compiles, random weights, the real architecture."""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers as tf
from transformers.pytorch_utils import Conv1D

HEADS = {
    "base": "AutoModel",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "masked-lm": "AutoModelForMaskedLM",
    "causal-lm": "AutoModelForCausalLM",
}

_COMMON = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_ENCODER = {**_COMMON, "intermediate_size": 48, "max_position_embeddings": 40}

CONFIGS: dict[str, Any] = {
    "BERT": lambda: tf.BertConfig(**_ENCODER),
    "DistilBERT": lambda: tf.DistilBertConfig(
        vocab_size=99, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=40
    ),
    "RoBERTa": lambda: tf.RobertaConfig(**_ENCODER, pad_token_id=1),
    "XLM-R": lambda: tf.XLMRobertaConfig(**_ENCODER, pad_token_id=1),
    "ELECTRA": lambda: tf.ElectraConfig(**_ENCODER, embedding_size=24),
    "MobileBERT": lambda: tf.MobileBertConfig(
        **_ENCODER,
        embedding_size=16,
        intra_bottleneck_size=16,
        num_feedforward_networks=2,
        true_hidden_size=16,
    ),
    "ALBERT": lambda: tf.AlbertConfig(**_ENCODER, embedding_size=16),
    "MPNet": lambda: tf.MPNetConfig(**_ENCODER, pad_token_id=1),
    "DeBERTa-v2": lambda: tf.DebertaV2Config(
        **_ENCODER,
        relative_attention=True,
        position_buckets=8,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
    ),
    "ModernBERT": lambda: tf.ModernBertConfig(
        **_ENCODER,
        local_attention=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
        reference_compile=False,
    ),
    "T5 encoder": lambda: tf.T5Config(
        vocab_size=99,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
    ),
    "GPT-2": lambda: tf.GPT2Config(
        vocab_size=99,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=40,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "Llama": lambda: tf.LlamaConfig(**_ENCODER, num_key_value_heads=1, pad_token_id=0),
    "Qwen3": lambda: tf.Qwen3Config(
        **_ENCODER, num_key_value_heads=1, head_dim=16, pad_token_id=0
    ),
}

DECODERS = ("GPT-2", "Llama", "Qwen3")
# Heads that transformers has for the family; every encoder has the base model.
WITHOUT_TASK_HEADS = ("T5 encoder",)


def heads_of(family: str) -> tuple[str, ...]:
    """The heads canao promises for a family."""
    if family in DECODERS:
        return ("base", "causal-lm")
    if family in WITHOUT_TASK_HEADS:
        return ("base",)
    return ("base", "sequence-classification", "token-classification", "question-answering")


def build(family: str, head: str = "base", *, seed: int = 0) -> torch.nn.Module:
    """A tiny model of ``family`` with ``head``; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = CONFIGS[family]()
        if family == "T5 encoder":
            return tf.T5EncoderModel(config).eval()
        return getattr(tf, HEADS[head]).from_config(config).eval()


def linear_layers(module: torch.nn.Module) -> list[torch.nn.Linear | Conv1D]:
    """The linear layers of a model, also those that GPT-2 calls otherwise."""
    return [one for one in module.modules() if isinstance(one, (torch.nn.Linear, Conv1D))]


@torch.no_grad()
def weighty(family: str) -> torch.nn.Module:
    """A tiny base model of ``family`` with weights that tell.

    As they are drawn, residuals and norms make nearly all of the outputs of so small a model:
    most of its linear layers could be left out within the tolerance of bf16 or int8. Here each
    gives about as much as it gets.
    """
    module = build(family)
    # Its norms do not normalise: what layers add would drive the last one's tanh to its ends.
    gain = 0.85 if family == "MobileBERT" else 1.0
    for layer in linear_layers(module):
        inputs = layer.weight.shape[0 if isinstance(layer, Conv1D) else 1]
        layer.weight *= gain / (layer.weight.std() * math.sqrt(inputs))
    for table in module.modules():
        if isinstance(table, torch.nn.Embedding):
            table.weight /= table.weight.std()
    return module
