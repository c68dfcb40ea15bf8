"""Tables of measurements and the choices that follow: what they keep, refuse and never do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.choosing import tuning
from canao.compiler.kernels.choosing.candidates import candidates_for
from canao.compiler.kernels.choosing.choices import (
    choose,
    chosen_engine,
    chosen_for_codes,
    chosen_for_zeros,
    narrowed,
)
from canao.compiler.kernels.choosing.host import cpu_key, is_alike, is_this_machine
from canao.compiler.kernels.choosing.labels import LINALG, SPARSE, packing_of, serves
from canao.compiler.kernels.choosing.problem import Problem
from canao.compiler.kernels.choosing.table import SCHEMA, Table, read_table, write_table
from canao.compiler.kernels.choosing.zeros import GROUPS, INPUTS, PANELS, WHOLE, Zeros, zeros_of
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import ENGINES, engine_for
from canao.compiler.kernels.product import ProductShape
from canao.compiler.kernels.sparse_choice import sparse_label
from canao.targets import Target

HOST = targets.get("host")
EVERYTHING = frozenset(feature for kind in ENGINES for feature in kind.features)
PRECISIONS = ("f32", "bf16", "int8")

problems = st.builds(
    Problem,
    st.sampled_from(PRECISIONS),
    st.integers(1, 400),
    st.sampled_from([64, 384]),
    st.sampled_from([96, 1536]),
)
with_zeros = st.builds(
    dataclasses.replace,
    problems,
    panel=st.sampled_from([*WHOLE, *PANELS]),
    kept=st.sampled_from([5, 25, 95]),
)
with_codes = st.builds(
    dataclasses.replace, problems, precision=st.sampled_from(["int8-weights", "int4-weights"])
)


@st.composite
def measurements(
    draw: st.DrawFn, kinds: st.SearchStrategy[Problem] = problems
) -> dict[Problem, dict[str, float]]:
    """Times of some of the candidates of some problems."""
    found = {}
    for problem in draw(st.lists(kinds, min_size=1, max_size=6)):
        labels = [candidate.label for candidate in candidates_for(EVERYTHING, problem)]
        chosen = draw(st.lists(st.sampled_from(labels), min_size=1, unique=True))
        found[problem] = {label: draw(st.floats(0.5, 1e6)) for label in chosen}
    return found


def packing(found: Engine | str | None) -> str | None:
    return found.packing if isinstance(found, Engine) else found


@given(measurements(problems | with_zeros | with_codes), st.text(), st.text())
def test_a_table_comes_back_from_its_bytes(
    found: dict[Problem, dict[str, float]], cpu: str, other: str
) -> None:
    table = Table({cpu: found, other: {}})
    again = Table.from_bytes(table.to_bytes())
    assert again.to_bytes() == table.to_bytes()
    assert set(again.cpus) == set(table.cpus)
    for problem, times in table.of(cpu).items():
        assert again.of(cpu)[problem] == pytest.approx(times, rel=1e-3)
    assert again.of("another CPU" + cpu + other) == {}


def test_the_file_names_the_best(tmp_path: Path) -> None:
    problem = Problem("f32", 32, 384, 1536)
    times = {"avx512_f32_8x48": 20.0, LINALG: 12.25}
    write_table(tmp_path / "t.json", Table({"cpu": {problem: times}}))
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]
    values = json.loads((tmp_path / "t.json").read_bytes())
    assert values == {
        "schema": SCHEMA,
        "cpus": {
            "cpu": [
                {
                    "precision": "f32",
                    "rows": 32,
                    "depth": 384,
                    "outputs": 1536,
                    "best": LINALG,
                    "microseconds": times,
                }
            ]
        },
    }
    assert read_table(tmp_path / "t.json") == (Table({"cpu": {problem: times}}), [])


@pytest.mark.parametrize("schema", [0, SCHEMA + 1, -1, "1", None, True, 1.0, [], 10**400])
def test_another_version_is_ignored_with_one_sentence(schema: object, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"schema": schema, "cpus": {}}))
    table, (warning,) = read_table(path)
    assert table == Table()
    assert str(path) in warning
    assert "\n" not in warning
    assert warning.endswith(".")


def test_no_table_is_an_empty_one(tmp_path: Path) -> None:
    assert read_table(tmp_path / "none.json") == (Table(), [])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Table.from_bytes(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
labels = st.sampled_from(
    [
        *["linalg", "avx512_f32_8x48", "avx512_f32_999x48", "avx512_f32_8x96", "amx_int8_3x32"],
        *["x_1x1", "sparse_avx512_f32_8x48", "sparse_amx_sparse_int8_32x48", "sparse_x"],
        *["sparse_amx_sparse_int8_7x960", "gathered_avx512_f32_8x48", "gathered_", "sparse_"],
        "sparse_gpu_sparse_f32",
    ]
)
hostile_entries = st.fixed_dictionaries(
    {
        "precision": st.sampled_from(PRECISIONS) | json_values,
        "rows": st.integers(-1, 10**12) | json_values,
        "depth": st.integers(1, 400) | json_values,
        "outputs": st.integers(1, 400) | json_values,
        "panel": st.sampled_from([0, 4, 16, 48]) | json_values,
        "kept": st.integers(-1, 120) | json_values,
        "microseconds": json_values | st.dictionaries(labels, st.floats() | json_values),
    }
)


@given(
    st.dictionaries(st.text(max_size=3), st.lists(hostile_entries | json_values) | json_values)
    | json_values
)
def test_whatever_a_table_holds_choosing_goes_on(cpus: object) -> None:
    data = json.dumps({"schema": SCHEMA, "cpus": cpus}).encode()
    try:
        table = Table.from_bytes(data)
    except ValueError:
        return
    for cpu in table.cpus:
        choices = choose(table.of(cpu))
        assert set(narrowed(choices, PRECISIONS, [(1, 2)])) <= set(choices)
        for problem in table.of(cpu):
            found = chosen_engine(choices, EVERYTHING, problem.precision, problem.shape)
            check_block(found, problem.precision)
            chosen_for_codes(choices, EVERYTHING, problem.precision, problem.shape)
            if problem.zeros:
                known = chosen_for_zeros(choices, problem.precision, problem.shape, problem.zeros)
                assert known in (None, "dense", "gathered") or not isinstance(known, str)


def check_block(found: Engine | str | None, precision: str) -> None:
    if isinstance(found, Engine):
        assert found.precision == precision
        assert 1 <= found.block_rows <= found.blocks[found.tiles]
        assert found.block_rows % found.row_multiple == 0


@given(
    st.dictionaries(
        st.sampled_from(["f32 64x96", "int8 64x96", "f32 7x64x96", "bf16 7x64x96"]),
        labels | st.text(max_size=20),
    ),
    st.sampled_from(PRECISIONS),
    st.integers(1, 50),
    st.sets(st.sampled_from(sorted(EVERYTHING))),
)
def test_hostile_choices_give_an_engine_of_the_core(
    choices: dict[str, str], precision: str, rows: int, features: set[str]
) -> None:
    found = chosen_engine(choices, features, precision, ProductShape(rows, 64, 96))
    check_block(found, precision)
    if isinstance(found, Engine):
        assert features >= set(found.features)
    elif found == LINALG:
        assert precision == "f32"
    else:
        assert engine_for(features, precision, 96, rows) is None


@given(measurements(), st.sets(st.integers(1, 500), min_size=2, max_size=5), st.data())
def test_packing_never_depends_on_rows(
    found: dict[Problem, dict[str, float]], rows: set[int], data: st.DataObject
) -> None:
    choices = choose(found)
    features = data.draw(st.sets(st.sampled_from(sorted(EVERYTHING))) | st.just(EVERYTHING))
    problem = data.draw(st.sampled_from(sorted(found)))
    taken = {
        packing(
            chosen_engine(
                choices,
                features,
                problem.precision,
                ProductShape(count, problem.depth, problem.outputs),
            )
        )
        for count in {*rows, problem.rows}
    }
    assert len(taken) == 1


def test_the_packing_is_the_best_over_all_rows_and_the_block_follows_them() -> None:
    wide, narrow, tall = "avx512_f32_8x48", "avx512_f32_12x32", "avx512_f32_11x32"
    found = {
        Problem("f32", 32, 64, 96): {wide: 9.0, narrow: 12.0, tall: 10.0},
        Problem("f32", 128, 64, 96): {wide: 40.0, narrow: 30.0, tall: 33.0},
    }
    choices = choose(found)
    assert choices["f32 64x96"] == packing_of(narrow)

    def taken(rows: int) -> str:
        one = chosen_engine(choices, ["avx512f"], "f32", ProductShape(rows, 64, 96))
        assert isinstance(one, Engine)
        return one.label

    assert [taken(rows) for rows in (32, 128, 200, 5)] == [
        tall,
        narrow,
        narrow,
        "avx512_f32_5x32",
    ]


def test_linalg_where_it_is_faster() -> None:
    choices = choose({Problem("f32", 8, 64, 96): {LINALG: 1.0, "avx512_f32_8x48": 2.0}})
    assert chosen_engine(choices, ["avx512f"], "f32", ProductShape(9, 64, 96)) == LINALG


@given(problems)
def test_the_rule_comes_first_and_every_block_fits(problem: Problem) -> None:
    found = candidates_for(EVERYTHING, problem)
    rule = engine_for(EVERYTHING, problem.precision, problem.outputs, problem.rows)
    assert rule is not None
    assert found[0].label == rule.label
    assert len({candidate.label for candidate in found}) == len(found)
    for candidate in found:
        assert serves(candidate.label, problem)
        if candidate.engine is not None:
            check_block(candidate.engine, problem.precision)


@given(measurements(with_zeros), st.sets(st.integers(1, 500), min_size=2, max_size=5))
def test_how_zeros_are_left_out_is_measured_and_no_matter_of_rows(
    found: dict[Problem, dict[str, float]], rows: set[int]
) -> None:
    choices = choose(found)
    for problem, times in found.items():
        assert problem.zeros

        def taken(count: int, problem: Problem = problem) -> str:
            shape = dataclasses.replace(problem, rows=count).shape
            assert problem.zeros
            one = chosen_for_zeros(choices, problem.precision, shape, problem.zeros)
            if one is None or isinstance(one, str):
                return str(one)
            check_block(one if isinstance(one, Engine) else None, problem.precision)
            return SPARSE + sparse_label(one)

        (packed,) = {taken(count) for count in {*rows, problem.rows}}
        alike = [one for one in found if dataclasses.replace(one, rows=1) == one_row(problem)]
        if len(alike) == 1:
            best = min(times, key=lambda label: (times[label], label))
            assert times[best] == min(
                time for label, time in times.items() if packing_of(label, problem) == packed
            )


def one_row(problem: Problem) -> Problem:
    return dataclasses.replace(problem, rows=1)


@given(measurements(with_codes))
def test_codes_are_multiplied_by_what_was_fastest(
    found: dict[Problem, dict[str, float]],
) -> None:
    choices = choose(found)
    for problem, times in found.items():
        one = chosen_for_codes(choices, EVERYTHING, problem.precision, problem.shape)
        assert one is not None
        assert times[one.label] == min(times.values())
        assert chosen_for_codes(choices, (), problem.precision, problem.shape) is None


@pytest.mark.parametrize(
    ("densities", "inputs", "expected"),
    [
        ({16: 0.25, 32: 0.44, 48: 0.58}, 1.0, Zeros(16, 25)),
        ({16: 0.26, 32: 0.26, 48: 0.27}, 1.0, Zeros(48, 25)),
        ({16: 0.24, 32: 0.26, 48: 0.41}, 1.0, Zeros(32, 25)),
        ({16: 0.25}, 0.26, Zeros(GROUPS, 25)),
        ({16: 0.94, 32: 0.94}, 0.5, Zeros(INPUTS, 50)),
        ({16: 1.0, 32: 1.0}, 0.5, Zeros(INPUTS, 50)),
        ({16: 0.001, 32: 0.001}, 0.02, Zeros(GROUPS, 5)),
        ({16: 0.98}, 1.0, None),
        ({}, 1.0, None),
    ],
)
def test_weights_are_told_apart_by_blocks_and_about_how_many(
    densities: dict[int, float], inputs: float, expected: Zeros | None
) -> None:
    assert zeros_of(densities, inputs) == expected
    if expected:
        mask = Problem("f32", 1, 256, 192, expected.panel, expected.kept).mask
        assert mask.mean() == pytest.approx(expected.kept / 100, abs=0.02)


def test_what_was_measured_here_counts_here_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem("f32", 8, 64, 96)
    write_table(tmp_path / "t.json", Table({cpu_key(): {problem: {LINALG: 1.0}}}))
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "t.json")
    expected = {"f32 64x96": LINALG, "f32 8x64x96": LINALG}
    assert tuning.choices_for(HOST)[0].items() >= expected.items()
    for other in elsewhere():
        assert not is_this_machine(other)
        assert tuning.choices_for(other) == ({}, [])
        assert tuning.tune([problem], other, lambda _: None) == []


def test_what_ships_serves_other_cpus_with_the_same_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch, *_, digest = cpu_key().split(" ")
    alike, other = f"{arch} A CPU/6/1/2 {digest}", f"{arch} A CPU/6/1/2 {'0' * 12}"
    foreign = f"another {cpu_key().partition(' ')[2]}"
    assert [is_alike(name, cpu_key()) for name in (alike, other, foreign)] == [True, False, False]
    small, large = Problem("f32", 8, 64, 96), Problem("f32", 8, 96, 64)
    shipped = {
        alike: {small: {LINALG: 1.0}, large: {LINALG: 1.0}},
        cpu_key(): {large: {"avx512_f32_8x32": 1.0}},
        other: {Problem("f32", 8, 32, 32): {LINALG: 1.0}},
        foreign: {Problem("f32", 8, 48, 48): {LINALG: 1.0}},
    }
    write_table(tmp_path / "shipped.json", Table(shipped))
    monkeypatch.setattr(tuning, "SHIPPED", tmp_path / "shipped.json")
    monkeypatch.setattr(tuning, "user_table", lambda: tmp_path / "own.json")
    found, _ = tuning.choices_for(HOST)
    assert found["f32 64x96"] == LINALG
    assert found["f32 96x64"] == "avx512_f32_1x32"
    assert not {"f32 32x32", "f32 48x48"} & set(found)
    assert set(tuning.choices_for(HOST, alike=False)[0]) == {"f32 96x64", "f32 8x96x64"}
    # The user's own is not for others: it may have come with a home directory.
    (tmp_path / "own.json").write_bytes((tmp_path / "shipped.json").read_bytes())
    (tmp_path / "shipped.json").unlink()
    assert "f32 64x96" not in tuning.choices_for(HOST)[0]


def elsewhere() -> list[Target]:
    found = [targets.get(name) for name in targets.names() if name != "host"]
    found.append(dataclasses.replace(HOST, features=HOST.features[:1]))
    found.append(dataclasses.replace(HOST, cpu="znver4"))
    return [target for target in found if target.triple == "" or target.arch != HOST.arch]


def test_no_tiles_is_still_this_machine() -> None:
    features = tuple(name for name in HOST.features if not name.startswith("amx-"))
    assert is_this_machine(dataclasses.replace(HOST, features=features))


def test_the_shipped_table_is_whole() -> None:
    table, warnings = read_table(tuning.SHIPPED)
    assert warnings == []
    assert table.to_bytes() == tuning.SHIPPED.read_bytes()


def test_the_users_table_wins_and_a_strange_one_is_ignored(tmp_path: Path) -> None:
    problem = Problem("f32", 8, 64, 96)
    shipped = Table({"cpu": {problem: {LINALG: 1.0}}, "other": {problem: {LINALG: 1.0}}})
    own = Table({"cpu": {problem: {"avx512_f32_8x48": 1.0}}})
    joined = shipped.joined(own)
    assert joined.of("cpu") == own.of("cpu")
    assert joined.of("other") == shipped.of("other")
