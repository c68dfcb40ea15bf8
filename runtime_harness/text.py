"""Text to token ids, with the tokenizer that a bundle carries; no transformers needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import BundleError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle
    from .session import Session

__all__ = ["TextTokenizer", "embed", "mean_pool"]


class TextTokenizer:
    """The tokenizer of a bundle.

    Raises InputError where the bundle has none, BundleError where it cannot be read.
    """

    def __init__(self, bundle: Bundle) -> None:
        from tokenizers import Tokenizer

        described = bundle.manifest.tokenizer
        if described is None:
            raise InputError(f"{bundle.path} carries no tokenizer: pass token ids to it instead.")
        try:
            text = bytes(bundle.read(described["file"])).decode("utf-8")
            self._tokenizer = Tokenizer.from_str(text)
        except BundleError:
            raise
        except Exception as error:
            raise BundleError(f"{bundle.path}: its tokenizer cannot be read: {error}") from error
        # A packaged tokenizer may come with settings of its own; the session pads and cuts.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(self, text: str, pair: str | None = None) -> list[int]:
        """The ids of ``text`` (and ``pair``), special tokens included.

        Raises InputError for a text without any token.
        """
        if not isinstance(text, str):
            raise InputError(f"A text is a string, not {type(text).__name__}.")
        ids: list[int] = self._tokenizer.encode(text, pair).ids
        if not text.strip():
            raise InputError("The text is empty: there is nothing to encode.")
        return ids


def mean_pool(hidden: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    """Sentence vectors of unit length from ``hidden`` [rows, seq, width] and ``mask`` [rows, seq].

    The mean over real positions, divided by its norm (Reimers and Gurevych 2019, section 3).
    """
    import numpy as np

    weights = mask[:, :, None].astype(hidden.dtype)
    mean = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    unit: NDArray[Any] = mean / np.maximum(norm, 1e-12)
    return unit


def embed(session: Session, texts: Sequence[str]) -> NDArray[Any]:
    """Sentence vectors [len(texts), width] from an encoder's ``last_hidden_state``."""
    import numpy as np

    tokenize = TextTokenizer(session.bundle)
    rows = []
    for text in texts:
        ids = np.asarray([tokenize(text)], dtype=np.int32)
        hidden = session(input_ids=ids)["last_hidden_state"]
        rows.append(mean_pool(hidden, np.ones_like(ids)))
    return np.concatenate(rows)
