"""The ``oteo`` command."""

from __future__ import annotations

import typer

from oteo.cli import audit, augment, codes, datasets, deployments, models, operations, predict, run, shift, stack, translate

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
app.add_typer(operations.app, name="operations")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
