"""What a search refuses at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from canao.errors import InputError, UnsupportedError
from canao.search import optimize as optimizing
from canao.search.metrics import lower_is_better
from canao.search.optimize import optimize
from canao.search.space.choices import MatrixChoices
from canao.search.space.space import ArchitectureSpace
from canao.search.study.checks import check_metric, check_space, check_target
from canao.search.tasks import Task
from canao.targets import Target, get, names
from tests.search.accuracy.spaces import dense_space, space
from tests.search.support import save_model, tiny_model, write_rows

ARM = get("arm64")


class _Task:
    """As much of a task as is looked at."""

    head = "sequence-classification"
    num_labels = 2

    def __init__(self, primary: str = "accuracy") -> None:
        self.primary = primary
        self.lower_is_better = lower_is_better(primary)


def task(primary: str = "accuracy") -> Task:
    return _Task(primary)  # type: ignore[return-value]


def test_programs_are_derived_for_cpus_alone() -> None:
    kinds = set()
    for name in names():
        target = get(name)
        kinds.add(target.kind)
        if target.kind == "cpu":
            check_target(target)
            continue
        with pytest.raises(UnsupportedError, match=f"for CPUs only, and target {name} is of kind"):
            check_target(target)
    assert kinds == {"cpu", "vulkan"}


def test_less_must_not_be_better() -> None:
    check_metric(task("f1"))
    with pytest.raises(UnsupportedError, match="of perplexity less is"):
        check_metric(task("perplexity"))


@pytest.mark.parametrize("name", ["arm64", "arm64-i8mm"])
def test_a_space_of_a_teacher_has_what_the_target_can_do(name: str) -> None:
    config = tiny_model("sequence-classification").config
    target = get(name)
    found = ArchitectureSpace.of_teacher(config, precisions=target.precisions)
    assert found.qkv.precisions == tuple(
        one for one in ("f32", "bf16", "int8") if one in target.precisions
    )
    every = ArchitectureSpace.of_teacher(config)
    assert every.down.precisions == ("f32", "bf16", "int8")
    with pytest.raises(UnsupportedError, match="allow one"):
        ArchitectureSpace.of_teacher(config, precisions=("f16",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"up": MatrixChoices(precisions=("int8", "bf16"))}, "up.precisions: .* has bf16, which"),
        ({"rest": "bf16"}, "rest: the space has bf16, which target arm64 cannot do"),
        ({"head": "token-classification"}, "head: the space has token-cl.* need sequence-cl"),
        ({"labels": 3}, "labels: the space has 3, and the data need 2"),
        ({"layers": (1, 4)}, "layers: the architecture has 4, the teacher 2"),
        ({"hidden": (16, 48)}, "hidden: the architecture has 48"),
        ({"ffn": (16, 96)}, "ffn: the architecture has 96"),
        ({"head_size": 8}, "head_size is 8, but the teacher's heads are of 16"),
        ({"vocabularies": (99, 120)}, "vocabulary: the architecture has 120"),
        ({"positions": 32}, "positions: the architecture has 32"),
    ],
)
def test_spaces_that_cannot_be_searched(changes: dict[str, Any], words: str) -> None:
    model = tiny_model("sequence-classification")
    check_space(dense_space(layers=(1, 2)), ARM, task(), model)
    with pytest.raises(InputError, match=words):
        check_space(dense_space(**{"layers": (1, 2), **changes}), ARM, task(), model)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checks")
    save_model(folder / "trained", "sequence-classification")
    rows = [{"text": f"the river {n}", "label": n % 2} for n in range(20)]
    write_rows(folder / "data" / "train.jsonl.gz", rows)
    write_rows(folder / "data" / "dev.jsonl.gz", rows[:4])
    return folder


def refused(place: Path, study: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    """Why a search is, before the device is looked at and without a study."""

    def never(*arguments: Any, **named: Any) -> Any:
        raise AssertionError("it is too late now")

    monkeypatch.setattr(optimizing, "identities", never)
    with pytest.raises(InputError) as found:
        optimize(str(place / "trained"), data=place / "data", output=study, **options)
    assert not study.exists()
    return str(found.value)


def test_a_search_is_refused_before_anything_is_done(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "s"
    larger = refused(place, study, monkeypatch, space=dense_space(layers=(5,)))
    assert "layers: the architecture has 5, the teacher 2" in larger

    monkeypatch.setattr(optimizing, "read_target", lambda *_: ("arm64", None))
    assert "bf16, which target arm64" in refused(place, study, monkeypatch, space=space())

    monkeypatch.setattr(optimizing, "read_target", lambda *_: ("vulkan-llvmpipe", None))
    assert "for CPUs only" in refused(place, study, monkeypatch)


def test_the_space_that_is_left_is_the_targets(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[ArchitectureSpace, Target]] = []

    def look(space: ArchitectureSpace, target: Target, *_: Any) -> None:
        asked.append((space, target))
        raise InputError("seen")

    monkeypatch.setattr(optimizing, "read_target", lambda *_: ("arm64", None))
    monkeypatch.setattr(optimizing, "check_space", look)
    assert refused(place, tmp_path / "s", monkeypatch) == "seen"
    ((found, target),) = asked
    assert target.name == "arm64"
    assert found.up.precisions == ("f32", "int8")
