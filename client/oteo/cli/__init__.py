"""The ``oteo`` command."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from oteo.cli import (
    audit,
    augment,
    codes,
    correct,
    datasets,
    deidentify,
    deployments,
    identity,
    models,
    operations,
    predict,
    run,
    shift,
    stack,
    tokens,
    translate,
)

app = typer.Typer(
    name="oteo",
    help="From a folder of images to a calibrated model behind a gRPC endpoint.",
    epilog=codes.HELP.replace("\n", " "),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.add(app)
stack.add(app)
app.add_typer(datasets.app, name="datasets")
app.add_typer(augment.app, name="augment")
models.add(app)
app.add_typer(models.app, name="models")
app.add_typer(translate.app, name="translate")
shift.add(app)
app.add_typer(deployments.app, name="deploy")
predict.add(app)
correct.add(app)
deidentify.add(app)
app.add_typer(operations.app, name="operations")
app.add_typer(audit.app, name="audit")
identity.add(app)
app.add_typer(tokens.app, name="tokens")


@app.callback()
def connection(
    ca: Annotated[
        str, typer.Option("--ca", metavar="FILE", help="PEM certificates that the gateway is checked against; OTEO_CA_FILE.")
    ] = "",
    cert: Annotated[str, typer.Option("--cert", metavar="FILE", help="Certificate of one's own (PEM); OTEO_CERT_FILE.")] = "",
    key: Annotated[str, typer.Option("--key", metavar="FILE", help="Its key (PEM); OTEO_KEY_FILE.")] = "",
    tls: Annotated[bool, typer.Option("--tls", help="TLS by the system's certificates; OTEO_TLS=true.")] = False,
    token_file: Annotated[str, typer.Option("--token-file", metavar="FILE", help="File of the token; OTEO_TOKEN_FILE.")] = "",
) -> None:
    """Take what is said before the command's name in the place of the variables: no secret is ever a word of the command line."""
    given = {
        "OTEO_CA_FILE": ca,
        "OTEO_CERT_FILE": cert,
        "OTEO_KEY_FILE": key,
        "OTEO_TLS": "true" if tls else "",
        "OTEO_TOKEN_FILE": token_file,
    }
    os.environ.update({name: value for name, value in given.items() if value})
    if token_file:
        os.environ.pop("OTEO_TOKEN", None)


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
