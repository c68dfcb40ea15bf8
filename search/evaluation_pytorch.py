"""Running a model in PyTorch, and what is told of its classes and its tokenizer."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..runtime_harness.device import check_threads
from .evaluation_running import Arrays, Runner
from .tasks.batching import INPUTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..compiler.models import SourceModel

__all__ = ["model_inputs", "model_runner", "tokenizer_of"]

_VOCABULARIES = ("vocab.*", "*.model", "*.tiktoken")


@contextlib.contextmanager
def model_runner(
    model: Any, *, bf16: bool, threads: int | None, max_length: int | None
) -> Iterator[Runner]:
    """A live model of transformers in evaluation mode; its mode is put back at the end.

    So is the number of torch's ``threads``, which None leaves as it is.
    """
    import torch

    if threads is not None:
        check_threads(threads, device="PyTorch")

    place = next(model.parameters()).device
    pad = getattr(model.config, "pad_token_id", None)
    caches = getattr(model.config, "use_cache", None) is not None

    def run(arrays: Arrays) -> Mapping[str, NDArray[Any]]:
        given: dict[str, Any] = {k: torch.from_numpy(v).to(place) for k, v in arrays.items()}
        if caches:
            given["use_cache"] = False
        with (
            torch.inference_mode(),
            torch.autocast(place.type, dtype=torch.bfloat16, enabled=bf16),
        ):
            found = model(**given, return_dict=True)
        return {
            name: value.float().cpu().numpy()
            for name, value in found.items()
            if isinstance(value, torch.Tensor)
        }

    training = [part for part in model.modules() if part.training]
    threads_before = torch.get_num_threads()
    try:
        model.eval()
        torch.set_num_threads(threads or threads_before)
        yield Runner(
            run=run,
            inputs=model_inputs(model),
            pad_id=pad if isinstance(pad, int) and pad >= 0 else 0,
            max_length=max_length,
            backend="pytorch",
            device="local" if place.type == "cpu" else str(place),
            precision="bf16" if bf16 else str(model.dtype).removeprefix("torch."),
        )
    finally:
        torch.set_num_threads(threads_before)
        for part in training:
            part.training = True


def model_inputs(model: Any) -> tuple[str, ...]:
    """Which of a feature's fields a model of transformers takes.

    ``token_type_ids`` only where it tells more than one type of token apart.
    """
    accepted = inspect.signature(model.forward).parameters
    types = (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    return tuple(
        name for name in INPUTS if name in accepted and (types or name != "token_type_ids")
    )


def tokenizer_of(source: SourceModel) -> Any:
    """A model directory's tokenizer, as `TextEncoder` takes it."""
    described = source.tokenizer_json()
    if described is not None:
        return described.decode("utf-8")
    from transformers import AutoTokenizer

    try:
        # Without any vocabulary, transformers makes a tokenizer that knows no word.
        if source.directory is None or not any(
            found for name in _VOCABULARIES for found in source.directory.glob(name)
        ):
            raise FileNotFoundError("it has no vocabulary")
        return AutoTokenizer.from_pretrained(source.directory, trust_remote_code=False)
    except Exception as error:
        raise InputError(
            f"{source.name} has no tokenizer that can be read: put its tokenizer.json beside it."
        ) from error
