"""The ``canao`` command: its table of commands, and the exit codes of the process."""

from __future__ import annotations

import os
import signal
import sys

import typer

from .commands import (
    building,
    choosing,
    compressing,
    evaluating,
    listing,
    predicting,
    running,
    searching,
    timings,
)
from .errors import CanaoError

__all__ = ["app", "main"]

app = typer.Typer(
    name="canao",
    help="Compile transformers for phones, run them there and measure them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# In the order in which --help names them.
for _command in (
    running.demo,
    listing.targets,
    listing.devices,
    building.compile,
    listing.patterns,
    building.inspect,
    compressing.compress,
    evaluating.eval,
    searching.search,
    searching.report,
    running.verify,
    running.bench,
    running.profile,
):
    app.command()(_command)
app.add_typer(timings.app)
predicting.app.command("next")(choosing.choose)
app.add_typer(predicting.app)


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


if __name__ == "__main__":  # so that `torchrun --module canao.cli` starts many
    main()
