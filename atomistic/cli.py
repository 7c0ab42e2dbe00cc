"""The command line of `atomistic`; every command is also a Python call.

An `AtomisticError` becomes one message on stderr and exit code 2.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import typer

from atomistic import commands
from atomistic.errors import AtomisticError

INTERNAL_ERROR = 70


def _application() -> typer.Typer:
    application = typer.Typer(
        name="atomistic",
        help="From a crystal and a grain-boundary plane to a transport record.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda found: found.name):
        function = importlib.import_module(f"{commands.__name__}.{module.name}").command
        application.command(module.name.replace("_", "-"))(function)

    @application.callback()
    def every_command() -> None:
        """From a crystal and a grain-boundary plane to a transport record."""

    return application


app = _application()


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run the command line; exit code 2 with one message for an error of the user's, 70 for one of ours.

    arguments: instead of the process's own.
    """
    try:
        app(args=arguments)
    except AtomisticError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except MemoryError:
        typer.echo("error: not enough memory; use fewer atoms or frames", err=True)
        sys.exit(2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        typer.echo(
            f"error: {place}{error.strerror or error}; check the path and the space on the disk", err=True
        )
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("stopped; run the same command to resume", err=True)
        sys.exit(130)
    except Exception as error:
        details = _details()
        typer.echo(
            f"internal error, {type(error).__name__}: {error}; details for a report: {details}", err=True
        )
        sys.exit(INTERNAL_ERROR)


def _details() -> Path:
    """A new file with the traceback of the error being handled."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="atomistic-", suffix=".txt", delete=False) as stream:
        stream.write(traceback.format_exc())
    return Path(stream.name)


if __name__ == "__main__":
    main()
