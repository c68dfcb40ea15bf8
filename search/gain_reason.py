"""Why a compressed model is less fast than its FLOPs promise: where the time of both goes."""

from __future__ import annotations

from collections.abc import Sequence

from ..runtime_harness.profile import ProfileRow

__all__ = ["KEPT", "explain"]

KEPT = 0.8
"""The share of the promised gain below which a report warns."""

_PRODUCTS = ("matmul", "attention")
_OWN_PRODUCTS = ("product_", "sparse_", "weights8_", "weights4_")


def explain(
    teacher: Sequence[ProfileRow],
    compressed: Sequence[ProfileRow],
    promised: float,
    *,
    sparse: bool = False,
) -> str:
    """Where the rest of a promised gain is, from the times of the dispatches of both models.

    Products are what FLOPs count. Either the time outside them did not shrink with them; or they
    did not shrink as their FLOPs did: because blocks of zeros are multiplied all the same (the
    density is above where leaving them out pays), or because narrow products run at a lower rate.
    """
    before, after = _products(teacher), _products(compressed)
    rest_before, rest_after = _whole(teacher) - before, _whole(compressed) - after
    shrunk = before / after if after else promised
    if shrunk >= KEPT * promised:
        share = rest_after / _whole(compressed)
        return (
            f"products became {shrunk:.2f} times faster, but {share:.0%} of the time is outside "
            f"them, where FLOPs do not count: {rest_before:.3g} ms before, {rest_after:.3g} ms now"
        )
    if sparse and not any("sparse_" in row.name for row in compressed):
        return (
            "no product leaves its blocks of zeros out: at this density a dense one is faster "
            f"here (products became {shrunk:.2f} times faster)"
        )
    kind = "sparse and narrow" if sparse else "narrower"
    slower = shrunk / promised
    return (
        f"{kind} products run at {slower:.0%} of the teacher's rate: they became {shrunk:.2f} "
        f"times faster with {promised:.2f} times fewer FLOPs"
    )


def _products(rows: Sequence[ProfileRow]) -> float:
    return sum(
        row.ms
        for row in rows
        if row.kind in _PRODUCTS or any(name in row.name for name in _OWN_PRODUCTS)
    )


def _whole(rows: Sequence[ProfileRow]) -> float:
    return sum(row.ms for row in rows)
