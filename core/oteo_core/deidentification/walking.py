"""Through a data set, element by element: each is kept, cleaned, emptied, replaced or removed as the table says.

The table names what may identify. Beyond it goes here what a table of names cannot see: private and unknown attributes, values that are not of
their representation, persons and dates that the table does not name, UIDs that the standard does not register.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR, repeater_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

from oteo_core.deidentification.keys import hashed_uid, pseudonym, shift_of
from oteo_core.deidentification.options import Options
from oteo_core.deidentification.table import table
from oteo_core.deidentification.values import TEXT, capped_age, cleaned, dummy, is_offset, is_valid, moved, texts, words

_PATIENT_NAME, _PATIENT_ID = Tag("PatientName"), Tag("PatientID")
_PATIENT_AGE, _TIMEZONE = Tag("PatientAge"), Tag("TimezoneOffsetFromUTC")
_FOREIGN_UIDS = frozenset({Tag("CodingSchemeUID"), Tag("ContextUID"), Tag("SOPClassUID"), Tag("ReferencedSOPClassUID")})
"""UIDs that name a vocabulary or a kind of object, whoever made it, and no instance."""
_CONTENT_SEQUENCE = Tag("ContentSequence")
_MOMENTS = ("DA", "TM", "DT")
_PERSONS = (
    "PatientName", "PatientID", "OtherPatientNames", "OtherPatientIDs", "ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName",
    "NameOfPhysiciansReadingStudy", "RequestingPhysician", "PatientMotherBirthName", "PatientBirthName", "PhysiciansOfRecord",
    "ScheduledPerformingPhysicianName", "ResponsiblePerson", "AccessionNumber",
)  # fmt: skip
_PLACES = ("InstitutionName", "InstitutionAddress", "PatientAddress", "StationName")
"""What a description may repeat."""


@dataclass
class Walk:
    """One object's de-identification.

    Parameters
    ----------
    dataset
        The object, which is changed in place.
    key
        Of all hashes.
    options
        What is kept beside the Basic Profile.
    counts
        How many elements had which action.
    """

    dataset: Dataset
    key: bytes
    options: Options
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Read what the whole object goes by, before it is changed."""
        self._sop_class = _first(self.dataset, "SOPClassUID")
        self._patient = _first(self.dataset, "PatientID") or _first(self.dataset, "PatientName")
        # Without a patient a study is what its dates belong to.
        self._days = shift_of(self.key, self._patient or _first(self.dataset, "StudyInstanceUID"))
        # A station is called CT 1, a person Li: two letters of a place say nothing.
        self._forbidden = self._words(_PERSONS, 2) | self._words(_PLACES, 3)

    def _words(self, names: tuple[str, ...], least: int) -> set[str]:
        return {word for name in names for value in _values(self.dataset, name) for word in words(value) if len(word) >= least}

    def run(self) -> None:
        """Change the object."""
        self._level(self.dataset, nested=False, clean=False)

    def _level(self, dataset: Dataset, nested: bool, clean: bool) -> None:
        for tag in list(dataset.keys()):
            action = self._element(dataset, tag, nested, clean)
            self.counts[action] += 1

    def _element(self, dataset: Dataset, tag: BaseTag, nested: bool, clean: bool) -> str:
        """Deal with one element; give the action."""
        if tag.is_private or tag.element == 0 or tag.group in (0x0000, 0x0002) or not _known(tag):
            return _remove(dataset, tag)
        if 0x6000 <= tag.group <= 0x60FF:
            # An overlay without its bits is no overlay: the whole group goes, not only what the table names.
            return _remove(dataset, tag)
        kinds = _kinds(tag)
        try:
            element = dataset[tag]
            kind, value = str(element.VR), element.value
        except Exception:  # noqa: BLE001 - a hostile element may break the parser anywhere; what cannot be read cannot be kept
            element, kind, value = None, "", None
        rule = table().find(tag)
        if rule is not None:
            action = table().action(rule, self.options.columns, self._sop_class, nested)
        else:
            action = self._unlisted(tag, kinds, kind, value)
        if action == "X":
            return _remove(dataset, tag)
        if action in ("Z", "D"):
            self._replace(dataset, tag, kinds, action, value if kind == "SQ" else None)
            return action
        if element is None or kind not in kinds or not is_valid(kind, value):
            if action == "U" and "SQ" not in kinds:
                # A UID that is none is hashed all the same, so that what it ties together stays tied.
                dataset[tag] = DataElement(tag, "UI", [hashed_uid(self.key, text or "?") for text in texts(value or "?")])
                return action
            return _remove(dataset, tag)
        if kind == "SQ":
            for item in value:
                self._level(item, nested=True, clean=clean or action == "C")
            return action
        self._keep(dataset, element, tag, kind, action, clean)
        return action

    def _unlisted(self, tag: BaseTag, kinds: tuple[str, ...], kind: str, value: Any) -> str:
        """Choose for an attribute that the table does not name."""
        if "PN" in kinds:
            return "Z"
        if kinds[0] in _MOMENTS:
            return {"remove": "X", "full": "K", "modified": "C"}[self.options.dates]
        if kind == "UI" and tag not in _FOREIGN_UIDS and not self.options.retain_uids:
            return "U"
        return "K"

    def _replace(self, dataset: Dataset, tag: BaseTag, kinds: tuple[str, ...], action: str, items: Any) -> None:
        kind = kinds[0]
        if kind == "SQ":
            hollow = _removed_content() if tag == _CONTENT_SEQUENCE else self._hollow(items[0]) if items else None
            inner = Items([] if action == "Z" or hollow is None else [hollow])
            dataset[tag] = DataElement(tag, "SQ", inner)
        elif dataset is self.dataset and tag in (_PATIENT_ID, _PATIENT_NAME):
            # One name for all files of a patient, which PS3.15 allows in the place of an empty one.
            value = f"OTEO-{pseudonym(self.key, 'patient', self._patient, 12).upper()}" if self._patient else ""
            dataset[tag] = DataElement(tag, kind, value)
        elif action == "Z":
            dataset[tag] = DataElement(tag, kind, b"" if kind.startswith("O") or kind == "UN" else None)
        else:
            dataset[tag] = DataElement(tag, kind, hashed_uid(self.key, "dummy") if kind == "UI" else _dummies(tag, kind))

    def _hollow(self, item: Dataset) -> Dataset:
        """Give an item of the same attributes, each with a dummy; UIDs that the standard registers tell nothing and stay."""
        made = Dataset()
        for tag in list(item.keys()):
            if tag.is_private or tag.element == 0 or not _known(tag):
                continue
            kinds = _kinds(tag)
            try:
                value = item[tag].value
            except Exception:  # noqa: BLE001 - as above
                value = None
            if kinds[0] == "SQ":
                made[tag] = DataElement(tag, "SQ", Items([self._hollow(value[0])] if isinstance(value, Items) and value else []))
            elif kinds[0] == "UI":
                made[tag] = DataElement(tag, "UI", [hashed_uid(self.key, text or "?") for text in texts(value or "?")])
            else:
                made[tag] = DataElement(tag, kinds[0], _dummies(tag, kinds[0]))
        return made

    def _keep(self, dataset: Dataset, element: DataElement, tag: BaseTag, kind: str, action: str, clean: bool) -> None:
        """Keep an element: as it is, its UIDs replaced, its dates moved or its words cleaned."""
        if action == "U":
            element.value = [hashed_uid(self.key, text) for text in texts(element.value)] if element.value else ""
        elif tag == _TIMEZONE:
            if not is_offset(str(element.value)):
                _remove(dataset, tag)
        elif action == "C" and kind in _MOMENTS:
            dates = [moved(kind, text, self._days) for text in texts(element.value)] if element.value else []
            element.value = dates if all(dates) else ""
        elif (action == "C" or clean) and kind in TEXT:
            kept = [cleaned(text, self._forbidden) for text in texts(element.value)] if element.value else []
            element.value = kept if any(kept) else ""
        elif tag == _PATIENT_AGE:
            element.value = capped_age(str(element.value or ""))


def _dummies(tag: BaseTag, kind: str) -> Any:
    """Give as many dummies as an attribute has to have."""
    least = dictionary_VM(tag).split("-")[0]
    count = int(least) if least.isdigit() else 1
    return dummy(kind) if count == 1 or isinstance(dummy(kind), bytes) else [dummy(kind)] * count


def _removed_content() -> Dataset:
    """Give the one line of a report whose content was removed."""
    concept = Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "121106", "DCM", "Comment"
    made = Dataset()
    made.RelationshipType, made.ValueType, made.TextValue = "CONTAINS", "TEXT", "REMOVED"
    made[Tag("ConceptNameCodeSequence")] = DataElement(Tag("ConceptNameCodeSequence"), "SQ", Items([concept]))
    return made


def _known(tag: BaseTag) -> bool:
    return bool(dictionary_has_tag(tag) or repeater_has_tag(int(tag)))


def _kinds(tag: BaseTag) -> tuple[str, ...]:
    """Give the representations that the dictionary allows an attribute, the one for a dummy first."""
    return tuple(part for part in dictionary_VR(tag).split(" or ") if part != "NONE") or ("UN",)


def _remove(dataset: Dataset, tag: BaseTag) -> str:
    del dataset[tag]
    return "X"


def _values(dataset: Dataset, name: str) -> Iterator[str]:
    try:
        value = dataset.get(name)
    except Exception:  # noqa: BLE001 - as in `Walk`: what cannot be read says nothing
        return
    if value:
        yield from texts(value)


def _first(dataset: Dataset, name: str) -> str:
    return next(_values(dataset, name), "").strip("\0 ")
