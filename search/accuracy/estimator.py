"""How good a sub-network of a teacher would be, in seconds: with weights that all of them share.

Nothing is judged by the development split here, but by the tenth of the training rows that no
weight is trained on.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...compiler.models import load_model
from ...errors import InputError
from ..compress_inputs import read_data, read_tokenizer
from ..evaluation import Evaluation, evaluate_model
from ..evaluation_pytorch import model_inputs
from ..space.architecture import Architecture
from ..space.space import ArchitectureSpace
from ..tasks.batching import length_batches
from ..training.batches import Collator
from ..training.heads import has_head
from ..training.holdout import hold_out
from ..training.options import TrainingOptions
from ..training.run import TrainingData, pad_id
from ..training.student import LABELS
from ..training.teacher import find_teacher
from ..training.trainer import bf16_in_hardware
from .adaptation import adapted, cut_words
from .options import SharingOptions
from .rebuilding import Moments, observe
from .result import Accuracy
from .sandwich import dense
from .sharing import share
from .supernet import Supernet

__all__ = ["AccuracyEstimator"]

_BATCH = 64
_CALIBRATION = 96


@dataclass(frozen=True, kw_only=True)
class _Words:
    """A tokenizer, and the rows of the full table of words that its ids are; None: all."""

    tokenizer: Any
    rows: torch.Tensor | None


class AccuracyEstimator:
    """Judges the architectures of one space, as sub-networks of one teacher.

    ``teacher`` is the fine-tuned model's directory, which compression cuts finalists from too.
    """

    def __init__(
        self,
        *,
        supernet: Supernet,
        teacher: Path,
        data: TrainingData,
        space: ArchitectureSpace,
        options: TrainingOptions,
    ) -> None:
        self.teacher = teacher
        self.space = space
        self.data = data
        self.options = options
        self._supernet = supernet
        self._words: dict[int, _Words] = {}
        self._batches: dict[tuple[int, int], list[dict[str, torch.Tensor]]] = {}
        self._found: dict[tuple[str, int], Accuracy] = {}

    @classmethod
    def prepare(
        cls,
        model: str | os.PathLike[str],
        *,
        data: str | os.PathLike[str],
        space: ArchitectureSpace | None = None,
        teacher: str | os.PathLike[str] | None = None,
        options: TrainingOptions | None = None,
        sharing: SharingOptions | None = None,
        dev: str | os.PathLike[str] | None = None,
        split: str = "dev",
        metric: str | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> AccuracyEstimator:
        """Find or make the teacher and the shared weights; both are kept in the cache.

        ``model``, ``data``, ``teacher``, ``dev``, ``split`` and ``metric`` are as for
        `canao.compress`, which finds the same teacher with the same ``options``. ``space`` is all
        sub-networks of the teacher if left. The first call takes minutes, and goes on where it
        was killed.

        Raises `InputError` for whatever is wrong with the call, `UnsupportedError` where the
        model is no BERT, `NumericsError` where a training diverges.
        """
        source = os.fspath(teacher if teacher is not None else model)
        chosen = options or TrainingOptions()
        # The other split says only how many classes there are, as compression counts them.
        task, train, _ = read_data(source, os.fspath(data), os.fspath(dev or data), split, metric)
        rows, held = hold_out(train, chosen.holdout, chosen.seed)
        given = TrainingData(
            task=task, tokenizer=read_tokenizer(source), train=tuple(rows), held=tuple(held)
        )
        chosen = chosen.replace(
            seq_len=chosen.seq_len or task.default_seq_len,
            bf16=bf16_in_hardware() if chosen.bf16 is None else chosen.bf16,
        )
        if teacher is not None and not has_head(source, task):
            raise InputError(
                f"{source} has no trained head {task.head!r}, so it cannot teach: fine-tune "
                "it, or leave it out and the model will be fine-tuned."
            )
        found = find_teacher(source, given, chosen, progress)
        config = load_model(found.directory).module.config
        wanted = space or ArchitectureSpace.of_teacher(config, head=task.head)
        shared = share(found.directory, given, wanted, chosen, sharing, progress)
        return cls(
            supernet=shared.supernet,
            teacher=found.directory,
            data=given,
            space=wanted,
            options=chosen,
        )

    @property
    def teacher_config(self) -> Any:
        """The teacher's configuration, as `Architecture.recipe` takes it."""
        return self._supernet.model.config

    def evaluate(
        self,
        architecture: Architecture,
        *,
        steps: int = 0,
        progress: Callable[[str], None] | None = None,
    ) -> Accuracy:
        """The metric on the rows held out, with blocks, precisions, words and length as the
        architecture has them.

        With ``steps`` a copy of the sub-network is first trained for so many, distilled from the
        teacher. The same question is answered from memory. Raises `InputError` where the
        architecture is larger than the teacher.
        """
        if type(steps) is not int or steps < 0:
            raise InputError(f"steps must be a whole number from 0 on, not {steps!r}.")
        key = (architecture.digest, steps)
        if key not in self._found:
            if steps:
                found = self._adapted(architecture, steps, progress)
            else:
                found = self._shared(architecture)
            self._found[key] = Accuracy(
                value=found.value,
                interval=found.interval,
                kind="adapted" if steps else "shared",
                metric=found.metric,
                n=len(self.data.held),
            )
        return self._found[key]

    def _shared(self, architecture: Architecture) -> Evaluation:
        words = self._words_of(architecture.vocabulary)
        with self._supernet.narrowed(
            architecture, stored=True, rows=words.rows, seen=self._seen(architecture, words)
        ) as model:
            return evaluate_model(
                model,
                words.tokenizer,
                self.data.task,
                self.data.held,
                seq_len=architecture.seq_len,
                batch_size=_BATCH,
                bf16=bool(self.options.bf16),
            )

    def _seen(self, architecture: Architecture, words: _Words) -> dict[tuple[int, str], Moments]:
        """What the matrices that lose blocks read, on some training rows, before they do."""
        readers = self._supernet.readers(architecture)
        if not readers:
            return {}
        batches = self._batches_of(architecture, words)
        whole = dense(architecture)
        with self._supernet.narrowed(whole, rows=words.rows) as model:
            found = observe(model, list(readers.values()), batches, bf16=bool(self.options.bf16))
        return dict(zip(readers, found, strict=True))

    def _batches_of(
        self, architecture: Architecture, words: _Words
    ) -> list[dict[str, torch.Tensor]]:
        """What matrices are seen to read by, once for each size and length."""
        key = (architecture.vocabulary, architecture.seq_len)
        if key not in self._batches:
            self._batches[key] = self._calibration(words.tokenizer, architecture.seq_len)
        return self._batches[key]

    def _calibration(self, tokenizer: Any, seq_len: int) -> list[dict[str, torch.Tensor]]:
        """Batches of training rows, drawn by the seed, without labels."""
        data, model = self.data, self._supernet.model
        count = min(len(data.train), _CALIBRATION)
        rows = random.Random(self.options.seed).sample(list(data.train), count)
        features = data.task.features(rows, tokenizer, seq_len)
        collate = Collator(inputs=model_inputs(model), pad_id=pad_id(model), longest=seq_len)
        lengths = [len(feature["input_ids"]) for feature in features]
        return [
            {
                name: tensor
                for name, tensor in collate([features[place] for place in places]).items()
                if name not in LABELS
            }
            for places in length_batches(lengths, _BATCH)
        ]

    def _adapted(
        self,
        architecture: Architecture,
        steps: int,
        progress: Callable[[str], None] | None,
    ) -> Evaluation:
        return adapted(
            self._supernet,
            load_model(self.teacher).module,
            architecture,
            self.data,
            self.options,
            steps,
            self._batches_of(architecture, self._words_of(architecture.vocabulary)),
            progress,
        )

    def _words_of(self, vocabulary: int) -> _Words:
        """The tokenizer of a cut vocabulary, once for each size."""
        if vocabulary not in self._words:
            model = self._supernet.model
            tokenizer, rows = self.data.tokenizer, None
            if vocabulary < model.config.vocab_size:
                tokenizer, rows = cut_words(model, tokenizer, self.data.train, vocabulary)
            self._words[vocabulary] = _Words(tokenizer=tokenizer, rows=rows)
        return self._words[vocabulary]
