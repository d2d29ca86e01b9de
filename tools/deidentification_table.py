"""Make the table of attributes that de-identification goes by, and which of them an object may not be without.

The text of the standard cannot be fetched where Oteo is built, so the table comes from two packages that ship it, both taken as data and never run:

- dicom-anonymizer (BSD-3-Clause): the Basic Profile's column of PS3.15 table E.1-1, edition 2026c;
- dicom-standard (MIT): all columns of table E.1-1, and the attribute types of PS3.3 by SOP class, as of April 2020.

The newer edition's Basic Profile stands. An option's column is known for the attributes that the older edition has; for later ones the Basic Profile
holds whatever option is chosen, but for dates and times, which both longitudinal options treat alike throughout the table.

    pip download --no-deps dicom-anonymizer==2.1.0 dicom-standard==0.1.0 -d FOLDER
    python tools/deidentification_table.py FOLDER
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag

TARGET = Path(__file__).resolve().parent.parent / "core" / "oteo_core" / "deidentification" / "profile.json"
_FIELDS = "dicomanonymizer/dicom_anonymization_databases/dicomfields_2026c.py"
_STANDARD = "dicom_standard-0.1.0.data/data/standard"
_ACTIONS = {
    "D_TAGS": "D", "Z_TAGS": "Z", "X_TAGS": "X", "U_TAGS": "U", "Z_D_TAGS": "Z/D", "X_Z_TAGS": "X/Z", "X_D_TAGS": "X/D",
    "X_Z_D_TAGS": "X/Z/D", "X_Z_U_STAR_TAGS": "X/Z/U*",
}  # fmt: skip
_COLUMNS = {
    "rtnUIDsOpt": "uids", "rtnDevIdOpt": "device", "rtnInstIdOpt": "institution", "rtnPatCharsOpt": "patient",
    "rtnLongFullDatesOpt": "full_dates", "rtnLongModifDatesOpt": "modified_dates", "cleanDescOpt": "descriptors",
}  # fmt: skip
_NEEDED = {"1": 1, "1C": 1, "2": 2, "2C": 2}
"""Types that an object may not be without: with a value, or at least empty."""


def basic_profile(wheel: zipfile.ZipFile) -> dict[str, str]:
    """Give the Basic Profile's action by tag: eight hexadecimal digits, "x" for any."""
    found: dict[str, str] = {}
    for node in ast.parse(wheel.read(_FIELDS).decode()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _ACTIONS:
            for tag in ast.literal_eval(node.value):
                found[_pattern(*tag)] = _ACTIONS[node.targets[0].id]
    return found


def _pattern(group: int, element: int, group_mask: int = 0xFFFF, element_mask: int = 0xFFFF) -> str:
    digits = zip(f"{group:04x}{element:04x}", f"{group_mask:04x}{element_mask:04x}", strict=True)
    return "".join(digit if mask == "f" else "x" for digit, mask in digits)


def options(standard: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    """Give the options' columns by tag."""
    rows = json.loads(standard.read(f"{_STANDARD}/confidentiality_profile_attributes.json"))
    return {row["id"]: {ours: row[theirs] for theirs, ours in _COLUMNS.items() if theirs in row} for row in rows}


def needed_types(standard: zipfile.ZipFile, tags: set[str]) -> dict[str, dict[str, int]]:
    """Give for each tag, by SOP class, whether a value (1) or at least the empty attribute (2) is needed; attributes of the data set itself."""
    by_module: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in json.loads(standard.read(f"{_STANDARD}/module_to_attributes.json")):
        parts = row["path"].split(":")
        if len(parts) == 2 and parts[1] in tags and row["type"] in _NEEDED:
            known = by_module[parts[0]].get(parts[1], 3)
            by_module[parts[0]][parts[1]] = min(known, _NEEDED[row["type"]])
    names = {row["name"]: row["id"] for row in json.loads(standard.read(f"{_STANDARD}/ciods.json"))}
    modules: defaultdict[str, list[str]] = defaultdict(list)
    for row in json.loads(standard.read(f"{_STANDARD}/ciod_to_modules.json")):
        modules[row["ciodId"]].append(row["moduleId"])
    result: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for sop in json.loads(standard.read(f"{_STANDARD}/sops.json")):
        for module in modules[names.get(sop["ciod"], "")]:
            for tag, kind in by_module[module].items():
                result[tag][sop["id"]] = min(kind, result[tag].get(sop["id"], 3))
    return result


def _is_moment(tag: str) -> bool:
    return "x" not in tag and dictionary_VR_or(tag) in ("DA", "TM", "DT")


def dictionary_VR_or(tag: str) -> str:
    """Give a tag's value representation by pydicom's dictionary; "" for what it does not know."""
    try:
        return str(dictionary_VR(int(tag, 16)))
    except KeyError:
        return ""


def table(folder: Path) -> dict[str, Any]:
    """Read both packages and give the whole table."""
    (anonymizer,), (standard_path,) = list(folder.glob("dicom_anonymizer-2.1.0-*.whl")), list(folder.glob("dicom_standard-0.1.0-*.whl"))
    with zipfile.ZipFile(anonymizer) as wheel:
        basic = basic_profile(wheel)
    with zipfile.ZipFile(standard_path) as standard:
        columns = options(standard)
        older = {tag for tag in columns if re.fullmatch(r"[0-9a-fx]{8}", tag)}
        if missing := older - basic.keys():
            raise SystemExit(f"the newer edition lacks {sorted(missing)}: look what became of them")
        compound = {tag for tag, action in basic.items() if "/" in action}
        types = needed_types(standard, compound)
        sops = sorted(
            {uid for by_sop in types.values() for uid in by_sop}
            | {row["id"] for row in json.loads(standard.read(f"{_STANDARD}/sops.json"))}
        )
    rows = {}
    for tag, action in sorted(basic.items()):
        row: dict[str, Any] = {"keyword": keyword_for_tag(int(tag, 16)) if "x" not in tag else "", "basic": action, **columns.get(tag, {})}
        if tag not in columns and _is_moment(tag):
            row |= {"full_dates": "K", "modified_dates": "C"}
        if tag in types:
            row["types"] = {
                kind: [sops.index(uid) for uid, needed in sorted(types[tag].items()) if needed == int(kind)] for kind in ("1", "2")
            }
        rows[tag] = row
    return {
        "source": {
            "basic": "PS3.15 table E.1-1, edition 2026c, as dicom-anonymizer 2.1.0 ships it (BSD-3-Clause, Kitware Europe)",
            "options": "PS3.15 table E.1-1 and PS3.3 as of April 2020, as dicom-standard 0.1.0 ships them (MIT, Innolitics)",
            "made_by": "tools/deidentification_table.py",
        },
        "sop_classes": sops,
        "attributes": rows,
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the two wheels lie")
    made = table(parser.parse_args().folder)
    # A line an attribute, so that a later edition shows as a readable difference.
    lines = [f"    {json.dumps(tag)}: {json.dumps(row)}" for tag, row in made["attributes"].items()]
    head = json.dumps({"source": made["source"]}, indent=2)[:-2]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(
        f'{head},\n  "sop_classes": {json.dumps(made["sop_classes"])},\n  "attributes": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    )
    print(f"{len(made['attributes'])} attributes in {TARGET}")


if __name__ == "__main__":
    main()
