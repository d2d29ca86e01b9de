"""What every command shares: where the gateway is, text or JSON, errors as exit codes."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from oteo.cli import codes
from oteo.client import Client
from oteo.errors import OperationFailed, OteoApiError

_WIDE = 10_000
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, and nothing else there.")]
Address = Annotated[str, typer.Option("--address", help="Gateway, host:port; default: OTEO_ADDRESS, else this machine's stack.")]


def plain(value: Any) -> Any:
    """Give messages as dictionaries (protobuf's JSON, names as in the protos), inside lists and dictionaries too."""
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value


class Session:
    """One run of the command.

    Parameters
    ----------
    as_json
        True: one JSON document on standard output, everything else on standard error.
    address
        The gateway's; empty: found by `oteo.find_endpoint`.
    """

    def __init__(self, as_json: bool, address: str) -> None:
        self.as_json = as_json
        self.address = address
        # A file or a pipe has no width: nothing is broken there, so that paths and names stay whole.
        self.out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
        self.err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _WIDE)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The connection, opened when it is first needed."""
        if self._client is None:
            self._client = Client(self.address or None)
        return self._client

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()

    def note(self, text: str) -> None:
        """Tell a person something beside the result, on standard error. Rich's markup is not read."""
        self.err.print(escape(text))

    def document(self, value: Any) -> None:
        """Write the JSON document."""
        sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")

    def show(self, value: Any, *renderables: Any) -> None:
        """Give the result: ``value`` as JSON, or the renderables for a person."""
        if self.as_json:
            self.document(value)
            return
        for renderable in renderables:
            # Text is left to the terminal to break: a path that it shows can be copied whole.
            self.out.print(renderable, soft_wrap=isinstance(renderable, str | Text))

    def fail(self, error: OteoApiError) -> int:
        """Tell of an error and give the exit code."""
        code, todo = codes.exit_code(error), codes.advice(error)
        operation = error.operation if isinstance(error, OperationFailed) else ""
        if self.as_json:
            self.document(
                {
                    "error": {
                        "code": error.code,
                        "reason": error.reason,
                        "message": error.message,
                        "field": error.field,
                        "metadata": error.metadata,
                        "operation": operation,
                        "todo": todo,
                        "exit_code": code,
                    }
                }
            )
        where = f" [bold]{escape(error.field)}[/]:" if error.field and not error.message.startswith(f"{error.field}:") else ""
        self.err.print(f"[bold red]{escape(error.reason or error.code)}[/]{where} {escape(error.message)}")
        if operation:
            self.err.print(f"[dim]operation:[/] {escape(operation)}")
        if todo:
            self.err.print(f"[dim]what to do:[/] {escape(todo)}")
        return code


def table(*columns: str, title: str | None = None, right: Sequence[str] = ()) -> Table:
    """Make a table in the one style of the command; columns named in ``right`` are aligned there."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        # The first column is what other commands are given: it is not broken.
        made.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=number == 0)
    return made


def command(app: typer.Typer, name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function whose first parameter is the `Session` as a command with ``--json`` and ``--address``, and turn errors into exit codes."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)
        own = [parameter.replace(annotation=hints[parameter.name]) for parameter in list(signature.parameters.values())[1:]]
        shared = [
            inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json),
            inspect.Parameter("address", inspect.Parameter.KEYWORD_ONLY, default="", annotation=Address),
        ]

        @functools.wraps(function)
        def run(*, as_json: bool, address: str, **given: Any) -> None:
            session = Session(as_json, address)
            try:
                function(session, **given)
            except OteoApiError as error:
                raise typer.Exit(session.fail(error)) from None
            except KeyboardInterrupt:
                session.note("interrupted")
                raise typer.Exit(codes.INTERRUPTED) from None
            except (typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except BrokenPipeError:
                # Whoever read the output, such as `head`, has had enough.
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the interpreter's last flush
                raise typer.Exit(codes.OK) from None
            except Exception as error:  # noqa: BLE001 - whatever happens, the exit code and the JSON document say so
                if os.environ.get("OTEO_DEBUG"):
                    traceback.print_exc()
                unexpected = OteoApiError(
                    "INTERNAL", f"{type(error).__name__}: {error} (OTEO_DEBUG=1 shows where)", reason="UNEXPECTED_ERROR"
                )
                raise typer.Exit(session.fail(unexpected)) from None
            finally:
                session.close()

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + shared
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del run.__wrapped__
        app.command(name, **options)(run)
        return function

    return register
