"""Architectures that are scaled as a whole."""

from __future__ import annotations

import itertools

from hypothesis import given

from canao.search.space.architecture import KINDS
from canao.search.space.choices import MatrixChoices
from canao.search.space.scalings import extremes, scalings
from canao.search.space.space import ArchitectureSpace
from tests.search.controllers.synthetic import small_space
from tests.search.space.spaces import spaces


@given(spaces)
def test_scalings_are_even_architectures_of_the_space(space: ArchitectureSpace) -> None:
    built = [space.build(values) for values in scalings(space)]
    largest, _ = extremes(space)
    assert len({one.digest for one in built}) == len(built)
    for one in built:
        assert len({(layer.heads, layer.ffn) for layer in one.layers}) == 1
        for kind in KINDS:
            assert one.layers[0].form(kind).density == max(getattr(space, kind).densities)
        assert (one.hidden, one.vocabulary) == (largest.hidden, largest.vocabulary)
    sizes = {(len(one.layers), one.layers[0].heads, one.layers[0].ffn) for one in built}
    assert (max(space.layers), max(space.heads), max(space.ffn)) in sizes
    assert (max(space.layers), min(space.heads), min(space.ffn)) in sizes
    assert {depth for depth, _, _ in sizes} == set(space.layers)


def test_a_ladder() -> None:
    form = MatrixChoices(precisions=("f32", "bf16", "int8"), densities=(1.0, 0.5))
    space = small_space(qkv=form, output=form, up=form, down=form, embedding_int8=(False, True))
    built = [space.build(values) for values in scalings(space)]
    rungs = [(len(one.layers), one.layers[0].heads, one.layers[0].ffn) for one in built]
    assert rungs == [(3, 2, 256), (3, 2, 128), (3, 1, 64), (2, 2, 256), (1, 2, 256), (3, 2, 256)]
    precisions = [one.layers[0].up.precision for one in built]
    assert precisions == ["int8"] * 5 + ["f32"]
    assert [one.embedding_int8 for one in built] == [True] * 5 + [False]
    flops = [one.costs().flops for one in built[:3]]
    assert all(more > less for more, less in itertools.pairwise(flops))
