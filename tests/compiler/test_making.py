"""What happens when a compiled bundle misses the cosine that a simulation promised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from canao.compiler import making
from canao.compiler.options import CompileOptions
from canao.compiler.quantization.judge import Goals, Judge
from canao.compiler.quantization.samples import Samples
from canao.errors import NumericsError


class Attempts:
    """In place of building and verifying: by attempt, what stays wider, and what is missed."""

    def __init__(self, patch: pytest.MonkeyPatch, *found: tuple[set[int], str]) -> None:
        self.rooms: list[float] = []
        self.verified: list[set[int]] = []
        self._left = iter(found)
        self._missed = ""
        patch.setattr(making, "build_modules", self._build)
        patch.setattr(making, "bundle_contents", lambda *_, **__: (None, {}))
        patch.setattr(making, "write_bundle", lambda path, *_: path)
        patch.setattr(making, "verify_targets", self._verify)

    def _build(self, *_: Any, room: float) -> Any:
        self.rooms.append(room)
        wider, self._missed = next(self._left)
        self._wider = wider
        return SimpleNamespace(wider=dict.fromkeys(wider, "bf16"))

    def _verify(self, *_: Any) -> Any:
        self.verified.append(self._wider)
        if self._missed:
            raise NumericsError(self._missed)
        return {"host": None}, ()


def made(folder: Path, told: list[str], precision: str = "int8") -> making.Made:
    options = CompileOptions.checked(target="arm64", seq_len=8, precision=precision)
    return making.make(None, options, folder, told.append)  # type: ignore[arg-type]


def test_what_is_right_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, ({1}, ""))
    assert set(made(tmp_path, []).built.wider) == {1}
    assert attempts.rooms == [1.0]


def test_more_layers_stay_wider_where_the_bundle_misses_its_cosine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    attempts = Attempts(monkeypatch, ({1}, "0.997"), ({1, 2, 3}, ""))
    assert set(made(tmp_path, told).built.wider) == {1, 2, 3}
    assert attempts.rooms == [1.0, 0.5]
    assert told == ["3 weights stay wider, not 1: 0.997"]


def test_the_same_choice_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = Attempts(monkeypatch, ({1}, "missed"), ({1}, "?"), ({1}, "?"))
    with pytest.raises(NumericsError, match="missed"):
        made(tmp_path, [])
    assert attempts.verified == [{1}]
    assert len(attempts.rooms) == 3


def test_what_is_not_narrow_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(monkeypatch, (set(), "wrong"))
    with pytest.raises(NumericsError, match="wrong"):
        made(tmp_path, [], "f32")
    assert attempts.rooms == [1.0]


def turned(*angles: float) -> Iterator[torch.Tensor]:
    """Two numbers whose cosines with those before are known: at first as they are."""
    yield from (torch.tensor([1.0, 0.0]) for _ in angles)
    yield from (torch.tensor([math.cos(angle), math.sin(angle)]) for angle in angles)


@pytest.mark.parametrize(
    ("angles", "verified", "expected"),
    [
        # What is verified counts by its worst, what is drawn beside it by the mean of all.
        ((0.01, 0.06, 0.01, 0.01), 2, math.cos(0.06)),
        ((0.01, 0.01, 0.08, 0.01), 2, (3 * math.cos(0.01) + math.cos(0.08)) / 4),
        ((0.0, 0.0), 0, 1.0),
    ],
)
def test_one_bad_sample_counts_where_it_is_verified(
    angles: tuple[float, ...], verified: int, expected: float
) -> None:
    results = turned(*angles)
    samples = Samples((), (), tuple((torch.zeros(1),) for _ in angles), verified)
    judge = Judge(lambda _: (next(results),), samples, {}, {})  # type: ignore[arg-type]
    assert judge.find([]).drawn == pytest.approx(expected, abs=1e-7)


def test_less_room_is_a_higher_goal() -> None:
    goals, stricter = Goals.above(0.998), Goals.above(0.998, 0.5)
    assert (goals.texts, goals.drawn) == pytest.approx((0.999, 0.9984))
    assert (stricter.texts, stricter.drawn) == pytest.approx((0.9995, 0.9992))
