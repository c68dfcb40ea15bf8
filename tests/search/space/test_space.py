from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError, UnsupportedError
from canao.search.space.architecture import Architecture
from canao.search.space.choices import MatrixChoices
from canao.search.space.space import ArchitectureSpace

from .spaces import architectures, spaces, tiny


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@given(architectures())
def test_an_architecture_round_trips(architecture: Architecture) -> None:
    again = Architecture.from_json(through_json(architecture.to_json()))
    assert again == architecture
    assert again.digest == architecture.digest


@given(spaces, st.integers(0, 2**32))
def test_a_space_round_trips_and_values_are_the_inverse_of_build(
    space: ArchitectureSpace, seed: int
) -> None:
    assert ArchitectureSpace.from_json(through_json(space.to_json())) == space
    found = space.sample(np.random.default_rng(seed))
    assert space.contains(found)
    values = space.values(found)
    assert tuple(values) == space.active(values)
    assert space.build(values) == found
    # What is decided for layers beyond the depth makes no difference.
    whole = {d.name: d.choices[-1] for d in space.decisions()} | values
    assert space.build(whole) == found
    assert space.build(through_json(whole)) == found


def test_the_size_is_the_number_of_different_architectures() -> None:
    space = tiny(
        hidden=(96,),
        ffn=(48, 96),
        **dict.fromkeys(("qkv", "output", "up"), MatrixChoices()),
        down=MatrixChoices(densities=(1.0, 0.5)),
    )
    rng = np.random.default_rng(3)
    seen = {space.sample(rng).digest for _ in range(2000)}
    # Two lengths, two densities; one layer of 2 x 2 sizes or two of them.
    assert space.size() == len(seen) == 2 * 2 * (4 + 16)


def test_decisions_have_two_phases_and_do_not_depend_on_the_depth() -> None:
    space = tiny()
    names = [decision.name for decision in space.decisions()]
    assert [d.name for d in space.decisions() if d.phase == 1] == ["layers", "seq_len"]
    assert "layer.1.ffn" in names
    shallow = space.active({"layers": 1})
    assert set(names) - set(shallow) == {"layer.1.heads", "layer.1.ffn"}


def test_bytes_and_flops_of_drawn_architectures_spread_widely() -> None:
    space = ArchitectureSpace.of_teacher(
        transformers.BertConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=6)
    )
    rng = np.random.default_rng(0)
    flops = [space.sample(rng).costs().flops for _ in range(200)]
    assert max(flops) > 30 * min(flops)


@pytest.mark.parametrize(
    ("size", "widths", "heads"),
    [
        ((768, 12, 3072, 12), (384, 768), (2, 12)),
        ((384, 12, 1536, 6), (192, 384), (2, 12)),
        ((1024, 16, 4096, 24), (512, 1024), (2, 16)),
        ((32, 2, 48, 1), (16, 32), (2, 2)),
        ((20, 5, 7, 1), (20, 20), (2, 5)),
    ],
)
def test_every_bert_has_a_space_whose_largest_member_it_is(
    size: tuple[int, int, int, int], widths: tuple[int, int], heads: tuple[int, int]
) -> None:
    width, count, ffn, layers = size
    config = transformers.BertConfig(
        hidden_size=width,
        num_attention_heads=count,
        intermediate_size=ffn,
        num_hidden_layers=layers,
    )
    space = ArchitectureSpace.of_teacher(config)
    assert (min(space.hidden), max(space.hidden)) == widths
    assert (min(space.heads), max(space.heads)) == heads
    assert (max(space.ffn), max(space.layers)) == (ffn, layers)
    space.sample(np.random.default_rng(0)).recipe(config).validate(config)


def test_other_families_have_no_space() -> None:
    with pytest.raises(UnsupportedError, match="roberta"):
        ArchitectureSpace.of_teacher(transformers.RobertaConfig())


def test_a_file_in_toml(tmp_path: Path) -> None:
    place = tmp_path / "space.toml"
    place.write_text(
        "version = 1\nlayers = 2\nhidden = [48, 96]\nheads = [2, 3]\nffn = [96]\n"
        'head_size = 16\nembedding_ranks = ["none", 8]\nper_layer = ["heads", "up.density"]\n'
        '[up]\nprecisions = "int8"\ndensities = [1, 0.5]\n'
    )
    space = ArchitectureSpace.load(place)
    assert space.layers == (2,)
    assert space.embedding_ranks == (None, 8)
    assert space.up == MatrixChoices(precisions=("int8",), densities=(1.0, 0.5))
    assert "layer.1.up.density" in {decision.name for decision in space.decisions()}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ffn": []}, "ffn is empty, so the space is"),
        ({"heads": [5]}, "5 heads do not divide a width of 48"),
        ({"ffn": [48, 48]}, "ffn has a choice twice"),
        ({"hidden": None}, "hidden"),
        ({"per_layer": ["depth"]}, "per_layer: 'depth' is none of"),
        ({"embedding_ranks": [48]}, "embedding_rank 48 saves nothing"),
        ({"seq_lens": [64]}, "seq_len is 64, but the model has 32 positions"),
        ({"down": {"densities": [0.001]}}, "down.density 0.001 leaves an empty matrix"),
        ({"down": {"precisions": ["f8"]}}, r"down\.precisions\[0\] must be one of"),
        ({"widths": [1]}, "widths is no field of a space"),
        ({"version": 2}, "version of the space must be 1"),
        ({"head": "pairs"}, "head must be one of"),
        ({"head": "question-answering", "labels": 3}, "labels: an answer has"),
    ],
)
def test_a_space_that_cannot_be_is_refused(
    changed: dict[str, Any], said: str, tmp_path: Path
) -> None:
    place = tmp_path / "space.json"
    place.write_text(json.dumps({**tiny().to_json(), **changed}))
    with pytest.raises(InputError, match=said) as caught:
        ArchitectureSpace.load(place)
    assert str(place) in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{", "7", '{"version": 1}', "\x00", '"\ud800"'])
def test_files_that_are_no_spaces(text: str, tmp_path: Path) -> None:
    for name in ("space.json", "space.toml"):
        place = tmp_path / name
        place.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(InputError, match="space"):
            ArchitectureSpace.load(place)
    with pytest.raises(InputError, match="cannot be used"):
        ArchitectureSpace.load(tmp_path / "none.json")


def test_values_that_are_no_choice_are_named() -> None:
    space = tiny()
    values = space.values(space.sample(np.random.default_rng(1)))
    for name, wrong in (("hidden", 50), ("layers", True), ("layer.0.ffn", "48")):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            space.build({**values, name: wrong})
    with pytest.raises(InputError, match="hidden: there is no value"):
        space.build({n: v for n, v in values.items() if n != "hidden"})
    other = tiny(hidden=(144,), heads=(3,)).sample(np.random.default_rng(1))
    assert not space.contains(other)
    with pytest.raises(InputError, match="head_size"):
        space.values(tiny(head_size=32).sample(np.random.default_rng(1)))


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("hidden",), 0),
        (("layers",), []),
        (("layers", 0, "heads"), 1.5),
        (("layers", 0, "up", "density"), math.inf),
        (("layers", 0, "up", "precision"), "f8"),
        (("block",), [4]),
        (("labels",), -1),
        (("extra",), 1),
        (("version",), True),
    ],
)
def test_architectures_that_cannot_be_are_refused_by_name(
    path: tuple[Any, ...], wrong: Any
) -> None:
    value = tiny().sample(np.random.default_rng(1)).to_json()
    place: Any = value
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = wrong
    with pytest.raises(InputError, match=str(path[-1])):
        Architecture.from_json(value)
