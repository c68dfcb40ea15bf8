"""Where each family of models keeps its layers, matrices and sizes.

Paths are of modules: ``layers`` within the base model, the others within one layer. Everything
else (embeddings, norms, poolers, heads of tasks) is found by its shape (`axes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import UnsupportedError

__all__ = ["DECODERS", "FAMILIES", "Family", "family_of"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """``key`` and ``value`` are ``query`` where one matrix is [Q K V] joined.

    ``head_size`` and ``head_counts`` are attributes of the attention module; ``ffn`` and
    ``kv_heads`` are fields of the configuration (the others go by their common names).
    ``rotates``: positions turn pairs within a head, so its units keep their order.
    """

    layers: str
    attention: str
    query: str
    key: str
    value: str
    output: str
    ffn_in: tuple[str, ...]
    ffn_out: str
    head_size: str
    head_counts: tuple[str, ...]
    widths: tuple[str, ...] = ()
    """Attributes of the attention module that hold heads * head size."""
    ffn: str = "intermediate_size"
    kv_heads: str | None = None
    rotates: bool = False
    from_padding: bool = False
    """Whether positions are counted from the id of the padding token."""


_BERT = Family(
    layers="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    ffn_in=("intermediate.dense",),
    ffn_out="output.dense",
    head_size="attention_head_size",
    head_counts=("num_attention_heads",),
    widths=("all_head_size",),
)
_ROBERTA = Family(**{**_BERT.__dict__, "from_padding": True})
_LLAMA = Family(
    layers="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    ffn_in=("mlp.gate_proj", "mlp.up_proj"),
    ffn_out="mlp.down_proj",
    head_size="head_dim",
    head_counts=(),
    kv_heads="num_key_value_heads",
    rotates=True,
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "electra": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": Family(
        layers="transformer.layer",
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        ffn_in=("ffn.lin1",),
        ffn_out="ffn.lin2",
        head_size="attention_head_size",
        head_counts=("n_heads",),
        ffn="hidden_dim",
    ),
    "mpnet": Family(
        layers="encoder.layer",
        attention="attention.attn",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        output="attention.attn.o",
        ffn_in=("intermediate.dense",),
        ffn_out="output.dense",
        head_size="attention_head_size",
        head_counts=("num_attention_heads",),
        widths=("all_head_size",),
        from_padding=True,
    ),
    "gpt2": Family(
        layers="h",
        attention="attn",
        query="attn.c_attn",
        key="attn.c_attn",
        value="attn.c_attn",
        output="attn.c_proj",
        ffn_in=("mlp.c_fc",),
        ffn_out="mlp.c_proj",
        head_size="head_dim",
        head_counts=("num_heads",),
        widths=("split_size",),
        ffn="n_inner",
    ),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}


DECODERS = ("gpt2", "llama", "qwen2", "qwen3")
"""Families in which a token reads those before it alone."""


def family_of(config: Any) -> Family:
    """The family of a configuration.

    Raises `UnsupportedError` where canao does not know how it is built, or where it is a decoder
    with cross-attention, which reads what another model wrote.
    """
    kind = getattr(config, "model_type", None)
    if kind not in FAMILIES:
        raise UnsupportedError(
            f"canao cannot compress the family {kind!r}: it can {', '.join(FAMILIES)}."
        )
    if getattr(config, "add_cross_attention", False):
        raise UnsupportedError(
            "canao cannot compress a model with cross-attention: take an encoder, or a decoder "
            "that reads its own text alone."
        )
    return FAMILIES[kind]
