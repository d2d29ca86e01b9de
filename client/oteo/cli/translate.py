"""``oteo translate``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from oteo.cli import codes, show
from oteo.cli.options import AllowMissing, Budget, Limit, RequestId, Timeout, Wait
from oteo.cli.pictures import Preview, save_sheet
from oteo.cli.progress import finish
from oteo.cli.session import Session, command, table
from oteo.cli.words import enum_word, local_path, metric_text, moment, short
from oteo.errors import OteoApiError
from oteo.names import slug
from oteo_protos.translate.v1 import translate_pb2

app = typer.Typer(
    help="Translators: bring images of another scanner or stain back to the look that a model knows, proved on that model.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The translator.")]
AllowRejected = Annotated[bool, typer.Option("--allow-rejected", help="Also use a translator that its own judgement has rejected.")]
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
_DISTANCES = ("kid", "fid")
"""Of images to home in what the frozen model sees, in the table's order."""
_BY_INCEPTION = {"kid_inception": "KID", "fid_inception_64": "FID of its first 64 figures"}
"""Of images to home by Inception, and their names for people."""


@command(app, "train")
def train(
    session: Session,
    home: Annotated[str, typer.Argument(help="The dataset that the model knows.")],
    shifted: Annotated[str, typer.Argument(help="The dataset that images now come from.")],
    model: Annotated[str, typer.Option("--model", help="The frozen model that must profit.")],
    budget: Budget,
    name: Annotated[str, typer.Option("--name", help="The translator's id; default: made from the datasets'.")] = "",
    method: Annotated[list[str] | None, typer.Option("--method", help="Try only this; again for more.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--set", help="METHOD.PARAMETER=VALUE, such as fastcut.steps=500: try the method with this alone; again for more."),
    ] = None,
    encoder: Annotated[
        str, typer.Option("--encoder", help="Folder or URI of pretrained VGG weights for style transfer; default: the service's setting.")
    ] = "",
    label_free: Annotated[bool, typer.Option("--label-free", help="Do not look at annotations of the shifted dataset.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every draw.")] = 0,
    preview: Annotated[
        Path | None,
        typer.Option(
            "--preview",
            dir_okay=False,
            help="Keep the newest sample picture of a way that is being trained in this file (PNG) while waiting.",
        ),
    ] = None,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Find what undoes a shift, from cheap to dear, and prove on the frozen model that it helps; or say that nothing does."""
    if preview is not None and not wait:
        raise typer.BadParameter("pictures are kept while the command waits: leave out --no-wait", param_hint="--preview")
    # Before the training is begun: a file that cannot be written is told at once.
    pictures = Preview(session, preview) if preview is not None else None
    handle = session.client.translators.train(
        home,
        shifted,
        model,
        budget=budget,
        name=name,
        translator_id=slug(name) if name else "",
        methods=method or (),
        parameters=read_parameters(parameter),
        encoder_uri=encoder,
        label_free=label_free,
        seed=seed,
        request_id=request_id or None,
    )

    def done(response: translate_pb2.TrainTranslatorResponse) -> None:
        session.show(response, facts(response.translator), evidence_table(response.translator))

    finish(session, handle, "translate", wait, timeout, done, also=pictures)


def read_parameters(given: list[str] | None) -> dict[str, dict[str, bool | float | str]]:
    """Read ``METHOD.PARAMETER=VALUE`` by method: numbers, true and false, else words.

    Raises
    ------
    OteoApiError
        BAD_PARAMETER for what is no such setting.
    """
    found: dict[str, dict[str, bool | float | str]] = {}
    for text in given or ():
        place, _, word = text.partition("=")
        method, _, name = place.strip().partition(".")
        if not (method and name and word):
            raise OteoApiError("INVALID_ARGUMENT", f"--set {text}: give METHOD.PARAMETER=VALUE", reason="BAD_PARAMETER", field="parameters")
        found.setdefault(method, {})[name] = _value(word.strip())
    return found


def _value(word: str) -> bool | float | str:
    try:
        value = json.loads(word)
    except ValueError:
        return word
    return value if isinstance(value, bool | int | float | str) else word


@command(app, "apply")
def apply(
    session: Session,
    name: Name,
    source: Annotated[list[str], typer.Argument(help="A dataset; or image files of this machine, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="For files: the folder to write to.")] = Path(
        "translated"
    ),
    new_name: Annotated[str, typer.Option("--name", help="For a dataset: the new dataset's id.")] = "",
    allow_rejected: AllowRejected = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Translate a dataset into a new one, or image files into a folder."""
    files = _files(source)
    if files:
        _apply_to_files(session, name, files, output, allow_rejected)
        return
    if len(source) != 1:
        raise OteoApiError("NOT_FOUND", f"not all of these are files here: {', '.join(source)}", reason="NO_SUCH_FILE", field="source")
    handle = session.client.translators.apply(
        name, source[0], dataset_id=slug(new_name) if new_name else "", allow_rejected=allow_rejected, request_id=request_id or None
    )

    def done(response: translate_pb2.TranslateDatasetResponse) -> None:
        session.show(response, f"{response.sample_count} images translated in {response.dataset}")

    finish(session, handle, "translate", wait, timeout, done)


def _files(source: list[str]) -> list[Path]:
    """Give the image files that are meant, or none where a dataset is."""
    found: list[Path] = []
    for word in source:
        path = Path(word)
        if path.is_dir():
            found += sorted(one for one in path.rglob("*") if one.suffix.lower() in _PICTURES)
        elif path.is_file():
            found.append(path)
        else:
            return []
    return found


def _apply_to_files(session: Session, name: str, files: list[Path], output: Path, allow_rejected: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)

    def images() -> Iterator[tuple[str, bytes]]:
        for number, file in enumerate(files):
            yield str(number), file.read_bytes()

    written: list[dict[str, str]] = []
    failed = 0
    for answer in session.client.translators.apply_to_images(name, images(), allow_rejected=allow_rejected):
        file = files[int(answer.key)]
        if answer.HasField("error"):
            failed += 1
            session.note(f"{file}: {answer.error.message}")
            written.append({"source": str(file), "error": answer.error.message})
            continue
        # The number keeps two files of one name in two folders apart.
        same = sum(one.stem == file.stem for one in files) > 1
        target = output / f"{file.stem}{f'-{answer.key}' if same else ''}.png"
        target.write_bytes(answer.image.content)
        written.append({"source": str(file), "path": str(target)})
    session.show(written, f"{len(files) - failed} of {show.plural(len(files), 'image')} translated in {output}")
    if failed:
        raise typer.Exit(codes.FAILED)


@command(app, "compare")
def compare(
    session: Session,
    names: Annotated[list[str], typer.Argument(help="One translator or more.")],
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            help="Write the sheet of shifted images, their translations, home's look and the model's answers before and after: a PNG file for one "
            "translator, a folder for several.",
        ),
    ] = None,
    limit: Limit = None,
) -> None:
    """Show all that was tried, best first, and where to look: the sheet of images before and after, with the model's answers."""
    found = session.client.translators.compare(names)
    if sheet is not None:
        for one in found:
            session.note(f"sheet: {save_sheet(one, sheet, several=len(found) > 1)}")
    shown: list[Text | Table | str] = []
    for one in found:
        shown += [facts(one), evidence_table(one, limit), ""]
    session.show(found, *shown)


@command(app, "list")
def list_(
    session: Session, model: Annotated[str, typer.Option("--model", help="Only those for this model.")] = "", limit: Limit = None
) -> None:
    """List translators, newest first."""
    found = list(session.client.translators.list(model=model, limit=limit))
    made = table("translator", "model", "method", "verdict", "shifted", "made")
    for one in found:
        made.add_row(
            short(one.name), short(one.model), escape(one.method), verdict(one), short(one.shifted_dataset), moment(one.create_time)
        )
    session.show(found, made if found else "no translators yet; `oteo translate train HOME SHIFTED --model MODEL --budget 10m` makes one")


@command(app, "show")
def show_one(session: Session, name: Name) -> None:
    """Show one translator and its evidence."""
    found = session.client.translators.get(name)
    session.show(found, facts(found), evidence_table(found))


@command(app, "delete")
def delete(session: Session, name: Name, allow_missing: AllowMissing = False) -> None:
    """Delete a translator."""
    session.client.translators.delete(name, allow_missing=allow_missing)
    session.show({"deleted": name}, f"{name} is deleted")


def verdict(one: translate_pb2.Translator) -> str:
    """Give the verdict in a word."""
    return enum_word(translate_pb2.Translator.Verdict.Name(one.verdict), "VERDICT_")


def facts(one: translate_pb2.Translator) -> Text:
    """Give a translator's facts, one a line."""
    changes = "the model, not the image" if one.changes == translate_pb2.Translator.CHANGES_MODEL else ""
    return show.facts(
        [
            ("translator", one.name),
            ("verdict", verdict(one)),
            ("why", one.reason),
            ("method", one.method),
            ("changes", changes),
            ("judged", one.criterion),
            ("model", one.model),
            ("home", one.home_dataset),
            ("shifted", one.shifted_dataset),
            ("to home", _distance_words(one)),
            ("by Inception", _inception_words(one)),
            ("before and after", local_path(one.contact_sheet_uri) if one.contact_sheet_uri else ""),
            ("report", local_path(one.report_uri) if one.report_uri else ""),
        ]
    )


def evidence_table(one: translate_pb2.Translator, limit: int | None = None) -> Table:
    """Give what was tried, best first; with distances to home where they were measured."""
    titles = {name: f"{name.upper()} to home" for name in _DISTANCES if any(_distance(item, name) for item in one.evidence)}
    figures = ("score", "gain", "structure", *titles.values())
    made = table("method", *figures, "may be used", "why", right=figures)
    for item in list(one.evidence)[:limit]:
        made.add_row(
            escape(item.method),
            metric_text(item.score) if item.HasField("score") else "",
            metric_text(item.gain) if item.HasField("gain") else "",
            metric_text(item.structure) if item.HasField("structure") else "",
            *(_distance(item, name) for name in titles),
            "yes" if item.accepted else "no",
            escape(item.reason),
        )
    return made


def _distance_words(one: translate_pb2.Translator) -> str:
    """Say what the distances are, and why one is not there; empty where there are none."""
    known = {found.name for item in one.evidence for found in item.distances}
    if not known & set(_DISTANCES):
        return ""
    left_out = "" if "fid" in known else "; FID takes more images of either set than the model has figures of an image, and is left out"
    return f"distance of the images to home in what the model sees, 0: none; nothing is chosen by it{left_out}"


def _inception_words(one: translate_pb2.Translator) -> str:
    """Say how far the images are from home by Inception, as they are and translated; empty where it was not measured."""
    told = []
    for name, title in _BY_INCEPTION.items():
        found = [(item.method, _distance(item, name)) for item in one.evidence]
        words = [f"{distance} {'as they are' if method == 'nothing' else f'with {method}'}" for method, distance in found if distance]
        if words:
            told.append(f"{title} {', '.join(sorted(words, key=lambda word: not word.endswith('as they are')))}")
    return "; ".join(told)


def _distance(item: translate_pb2.MethodEvidence, name: str) -> str:
    """Give ``"0.0521 (0.031 to 0.0744)"``: to three figures, as a distance's size depends on the model; empty where there is none."""
    for found in item.distances:
        if found.name == name:
            span = f" ({found.lower:.3g} to {found.upper:.3g})" if found.HasField("lower") and found.HasField("upper") else ""
            return f"{found.value:.3g}{span}"
    return ""
