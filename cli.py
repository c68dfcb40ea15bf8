"""The ``canao`` command: parses, calls the floors below, prints."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer

from . import console
from .errors import CanaoError, InputError

__all__ = ["app", "main"]

app = typer.Typer(
    name="canao",
    help="Compile transformers for phones, run them there and measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
BundleArg = Annotated[str, typer.Argument(metavar="BUNDLE", help="A directory or .canao file.")]
DeviceOpt = Annotated[str, typer.Option("--device", help="local, vulkan or qemu.")]
TargetOpt = Annotated[
    str | None, typer.Option("--target", help="Which of the bundle's targets to run.")
]
SeqLenOpt = Annotated[
    int | None, typer.Option("--seq-len", help="Which length; the longest by default.")
]
ThreadsOpt = Annotated[int, typer.Option("--threads", help="CPU threads.")]
TimeoutOpt = Annotated[float | None, typer.Option("--timeout", help="Seconds allowed per call.")]


@app.command()
def demo(json: Json = False) -> None:
    """Embed real sentences with the packaged MiniLM on every device that is here."""
    from .demo import run_demo

    with console.progress() as tell:
        report = run_demo(progress=tell)
    if json:
        console.print_json(report.to_json())
    else:
        report.print()
    if not all(row["ok"] for row in report.rows):
        raise typer.Exit(4)


@app.command()
def targets(json: Json = False) -> None:
    """What can be compiled for."""
    from . import targets as table

    listed = [table.get(name) for name in table.names()]
    if json:
        console.print_json({"targets": [target.to_json() for target in listed]})
        return
    console.print_table(
        ("target", "kind", "precisions", "devices", "description"),
        [
            (t.name, t.kind, ", ".join(t.precisions), ", ".join(t.devices), t.description)
            for t in listed
        ],
    )


@app.command()
def devices(
    json: Json = False,
    fetch: Annotated[
        str | None,
        typer.Option("--fetch", help="Download what a device needs from PyPI: qemu."),
    ] = None,
) -> None:
    """What is here to run on; what is missing, and how to get it."""
    from .runtime_harness import devices as table

    if fetch is not None:
        _fetch(fetch)
    listed = table.infos()
    if json:
        console.print_json({"devices": [info.to_json() for info in listed]})
        return
    console.print_table(
        ("device", "here", "emulated", "runs", "description"),
        [
            (
                info.name,
                "yes" if info.available else "no",
                "yes" if info.emulated else "no",
                ", ".join(info.targets),
                info.description if info.available else f"{info.missing} {info.remedy}",
            )
            for info in listed
        ],
    )


def _fetch(device: str) -> None:
    if device != "qemu":
        raise InputError(f"Nothing can be fetched for {device!r}: only 'qemu' needs a download.")
    from .runtime_harness.aarch64_runtime import ensure

    ensure()


@app.command()
def compile(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A Hub id, a directory, a config.json (random weights) or 'minilm'.",
        ),
    ],
    target: Annotated[
        list[str], typer.Option("--target", help="Repeat for several; see 'canao targets'.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="A directory, or NAME.canao.")
    ],
    seq_len: Annotated[str, typer.Option("--seq-len", help="Lengths, e.g. 32,128,384.")] = "128",
    precision: Annotated[str, typer.Option("--precision", help="auto or f32.")] = "auto",
    fusion: Annotated[str, typer.Option("--fusion", help="auto, stock or none.")] = "auto",
    drop_pattern: Annotated[
        list[str] | None,
        typer.Option("--drop-pattern", metavar="NAME", help="Leave a pattern out; may repeat."),
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", help="The checkpoint's own if left.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Rows per call of the module.")] = 1,
    require_verified: Annotated[
        bool,
        typer.Option("--require-verified", help="Exit 4 unless every target was run here."),
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds allowed per compiled module.")
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option("--memory-limit", metavar="GIB", help="Memory of one compiling process."),
    ] = None,
    json: Json = False,
) -> None:
    """Compile a model for one or more targets, check its numbers, write a bundle."""
    from .compiler.api import compile_model

    with console.progress() as tell:
        report = compile_model(
            model,
            target=target,
            seq_len=_lengths(seq_len),
            precision=precision,
            fusion=fusion,
            drop_patterns=tuple(drop_pattern or ()),
            head=head,
            batch=batch,
            output=output,
            require_verified=require_verified,
            timeout=timeout,
            memory_limit=None if memory_limit is None else int(memory_limit * 2**30),
            progress=tell,
        )
    for warning in report.warnings:
        console.warn(warning)
    if json:
        console.print_json(report.to_json())
        return
    console.print_table(
        ("module", "dispatches", "checked on", "max abs error", "cosine"),
        [
            (key, str(count), *_numbers(report.numerics[key.rpartition("/")[0]]))
            for key, count in report.dispatches.items()
        ],
    )
    console.say(
        f"{report.bundle.path}: {report.bytes / 1e6:.1f} MB, {report.seconds:.1f} s, patterns: "
        + ", ".join(f"{name} x{count}" for name, count in report.patterns.items())
    )


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--seq-len takes whole numbers with commas between them, not {text!r}."
        ) from error


def _numbers(found: Any) -> tuple[str, str, str]:
    if found is None:
        return "not verified", "-", "-"
    return found["device"], f"{found['max_abs_err']:.2g}", f"{found['cosine']:.6f}"


@app.command()
def patterns(
    target: Annotated[str, typer.Option("--target", help="Whose pipeline.")] = "host",
    json: Json = False,
) -> None:
    """The rewrite patterns that run for a target, in order."""
    from . import targets as table
    from .compiler.patterns.registry import pipeline

    chosen = pipeline(table.get(target))
    rows = [
        {
            "name": pattern.name,
            "stage": str(stage),
            "required": pattern.required,
            "summary": (sys.modules[type(pattern).__module__].__doc__ or "")
            .strip()
            .split("\n")[0],
        }
        for stage, listed in chosen.items()
        for pattern in listed
    ]
    if json:
        console.print_json({"target": target, "patterns": rows})
        return
    console.print_table(
        ("pattern", "stage", "may be dropped", "what it does"),
        [
            (str(r["name"]), str(r["stage"]), "no" if r["required"] else "yes", str(r["summary"]))
            for r in rows
        ],
    )


@app.command()
def inspect(bundle: BundleArg, json: Json = False) -> None:
    """What is inside a bundle, how it was made, and how large it is."""
    from .inspection import describe

    report = describe(bundle)
    if json:
        console.print_json(report.to_json())
    else:
        report.print()


@app.command()
def verify(
    bundle: BundleArg,
    device: DeviceOpt,
    target: TargetOpt = None,
    seq_len: SeqLenOpt = None,
    timeout: TimeoutOpt = None,
    json: Json = False,
) -> None:
    """Run a bundle's reference inputs on a device and compare the outputs."""
    from .runtime_harness.verify import verify as run

    found = run(bundle, device, target=target, seq_len=seq_len, timeout=timeout)
    if json:
        console.print_json(dict(found))
    else:
        verdict = "agrees with" if found["ok"] else "DIFFERS from"
        console.say(
            f"{bundle} on {device} {verdict} the reference: max abs error "
            f"{found['max_abs_err']}, cosine {found['cosine']}"
        )
    if not found["ok"]:
        raise typer.Exit(4)


@app.command()
def bench(
    bundle: BundleArg,
    device: DeviceOpt = "local",
    target: TargetOpt = None,
    seq_len: SeqLenOpt = None,
    threads: ThreadsOpt = 1,
    repetitions: Annotated[
        int | None, typer.Option("--repetitions", help="Calls to time.")
    ] = None,
    timeout: TimeoutOpt = None,
    json: Json = False,
) -> None:
    """Measure the latency of a bundle on a device."""
    from .runtime_harness.bench import bench as run

    options = {} if repetitions is None else {"repetitions": repetitions}
    found = run(
        bundle, device, target=target, seq_len=seq_len, threads=threads, timeout=timeout, **options
    )
    if json:
        console.print_json(found.to_json())
        return
    marks = "" if found.stable else f", UNSTABLE ({found.reason})"
    marks += ", emulated: not a time of real silicon" if found.emulated else ""
    console.say(
        f"{found.target} at {found.seq_len} on {device}, {found.threads} thread(s): median "
        f"{console.milliseconds(found.median_ms)} ms, p90 {console.milliseconds(found.p90_ms)} ms "
        f"over {len(found.samples_ms)} calls{marks}"
    )


@app.command()
def profile(
    bundle: BundleArg,
    device: DeviceOpt = "local",
    target: TargetOpt = None,
    seq_len: SeqLenOpt = None,
    threads: ThreadsOpt = 1,
    timeout: TimeoutOpt = None,
    json: Json = False,
) -> None:
    """Time per dispatch, mapped back to the model's layers."""
    from .runtime_harness.profile import profile as run

    found = run(bundle, device, target=target, seq_len=seq_len, threads=threads, timeout=timeout)
    if json:
        console.print_json(found.to_json())
        return
    if found.emulated:
        console.warn(f"{device} is emulated: these are not times of real silicon")
    console.print_table(
        ("dispatch", "layer", "kind", "calls", "ms", "%"),
        [
            (r.name, r.layer, r.kind, str(r.calls), f"{r.ms:.3f}", f"{100 * r.share:.1f}")
            for r in found.rows
        ],
    )


def main() -> None:
    """Entry point of the console script; ends the process with a stable exit code."""
    # A request to end is an exception like Ctrl-C, so that children and files are cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(standalone_mode=True)
    except CanaoError as error:
        if os.environ.get("CANAO_DEBUG"):
            raise
        sys.stderr.write(f"canao: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("canao: interrupted\n")
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"canao: the package {error.name!r} is not installed: "
            "pip install 'canao[compiler,minilm]'\n"
        )
        sys.exit(2)
    except OSError as error:
        if os.environ.get("CANAO_DEBUG"):
            raise
        place = f" ({error.filename})" if error.filename else ""
        sys.stderr.write(f"canao: the system refuses: {error.strerror or error}{place}\n")
        sys.exit(1)
    except Exception as error:
        if os.environ.get("CANAO_DEBUG"):
            raise
        sys.stderr.write(
            f"canao: unexpected {type(error).__name__}: {error} (CANAO_DEBUG=1 shows where)\n"
        )
        sys.exit(1)
