"""A table of files and labels: columns by name, and what does not fit said row by row."""

from __future__ import annotations

import pytest
from import_sources import class_folders, write_picture

from oteo_core.errors import InvalidArgument


def table(root, text, count=8, folder="pictures"):
    for index in range(count):
        write_picture(root / folder / f"{index}.png", index)
    (root / "table.csv").write_text(text)
    return root


def rows(head, line, count=8):
    return head + "\n" + "".join(line(index) + "\n" for index in range(count))


@pytest.mark.parametrize(
    ("head", "path"),
    [
        ("file,label", "pictures/{0}.png"),
        ("Path;Class", "pictures\\{0}.png"),
        ("image_path\tdiagnosis", "C:/elsewhere/pictures/{0}.png"),
        ("\ufeffFilename,Category", "{0}.png"),
        ("filename,category", '"./pictures/{0}.png"'),
    ],
)
def test_columns_are_found_by_name(head, path, tmp_path, import_source):
    delimiter = next(letter for letter in ",;\t" if letter in head)
    made = import_source(table(tmp_path, rows(head, lambda i: f"{path.format(i)}{delimiter}{('benign', 'malign')[i % 2]}")))
    assert made.info.source_format == "csv"
    assert made.info.task == "classification"
    assert made.info.classes == ("benign", "malign")
    assert {sample.labels[0] for path, sample in made.samples.items() if path in ("pictures/0.png", "pictures/2.png")} == {"benign"}
    assert made.info.excluded_count == 0


def test_parts_and_patients_are_taken_over(tmp_path, import_source):
    parts = ["training", "training", "val", "val", "test", "test", "training", "training"]
    made = import_source(
        table(tmp_path, rows("file,label,split,patient", lambda i: f"pictures/{i}.png,{'ab'[i % 2]},{parts[i]},p{i // 2}"))
    )
    assert [made.samples[f"pictures/{i}.png"].group for i in range(8)] == [f"p{i // 2}" for i in range(8)]
    wanted = ["train", "train", "validation", "validation", "test", "test", "train", "train"]
    assert [made.samples[f"pictures/{i}.png"].split for i in range(8)] == wanted


def test_several_classes_in_one_cell(tmp_path, import_source):
    made = import_source(table(tmp_path, rows("image,labels", lambda i: f'pictures/{i}.png,"a;{"b c" if i % 2 else "a"}"')))
    assert made.info.task == "multi_label_classification"
    assert made.samples["pictures/1.png"].labels == ("a", "b c")
    assert made.samples["pictures/2.png"].labels == ("a",)


def test_a_column_for_each_class(tmp_path, import_source):
    lines = rows("image_id,age,oedema,effusion,never", lambda i: f"{i}.png,{30 + i},{i % 2},{int(i > 3)}.0,0")
    made = import_source(table(tmp_path, lines.replace("7.png,37,1", "7.png,37,perhaps")))
    assert made.info.classes == ("oedema", "effusion", "never")
    assert made.samples["pictures/5.png"].labels == ("oedema", "effusion")
    assert "BAD_ANNOTATION" in made.codes("pictures/7.png")
    assert made.samples["pictures/2.png"].excluded  # no class at all


def test_what_does_not_fit_is_said_and_the_rest_is_kept(tmp_path, import_source):
    text = rows("file,label", lambda i: f"pictures/{i}.png,{'ab'[i % 2]}", 6)
    text += "pictures/99.png,a\n,b\n\npictures/0.png,b\npictures/6.png\n"
    made = import_source(table(tmp_path, text))
    assert made.codes("pictures/99.png") == ["MISSING_IMAGE"]
    assert made.codes("table.csv#row=9") == ["MISSING_IMAGE"]
    assert made.codes("pictures/7.png") == ["MISSING_ANNOTATION"]
    assert made.codes("pictures/6.png") == ["MISSING_ANNOTATION"]
    assert made.codes("pictures/0.png") == ["BAD_ANNOTATION"]
    assert "row 11" in made.samples["pictures/0.png"].findings[0].message
    assert made.info.sample_count == 5
    assert made.info.excluded_count == 5


def test_a_table_of_something_else_is_no_list_of_images(tmp_path, import_source):
    class_folders(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "names.csv").write_text("id,label\n1,a\n2,b\n")
    (tmp_path / "files.csv").write_text("file,label\nreadme.txt,a\nother.txt,b\n")
    assert import_source(tmp_path).info.source_format == "class_folders"


def test_asking_for_a_table_where_there_is_none_is_refused(tmp_path, import_source):
    class_folders(tmp_path, {"a": 4, "b": 4})
    with pytest.raises(InvalidArgument) as refused:
        import_source(tmp_path, format="csv")
    assert refused.value.reason == "UNSUPPORTED_FORMAT"
