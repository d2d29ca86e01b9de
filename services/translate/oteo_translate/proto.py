"""Translators as the contract gives them."""

from __future__ import annotations

from google.protobuf import timestamp_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from oteo_core.packages.proto import metric_to_proto
from oteo_core.packages.translators import MODEL, MethodRecord, TranslatorPackage
from oteo_protos.translate.v1 import translate_pb2
from oteo_translate.measures.home import distances_of

_PAGE, _SHEET = "report.html", "sheet.png"


def record_to_proto(record: MethodRecord) -> translate_pb2.MethodEvidence:
    """Give the contract's evidence."""
    return translate_pb2.MethodEvidence(
        method=record.method,
        parameters=ParseDict(dict(record.parameters), Struct()),
        score=metric_to_proto(record.score) if record.score else None,
        gain=metric_to_proto(record.gain) if record.gain else None,
        structure=metric_to_proto(record.structure) if record.structure else None,
        accepted=record.accepted,
        reason=record.reason,
        distances=[metric_to_proto(one) for one in distances_of(record.figures)],
    )


def translator_to_proto(package: TranslatorPackage) -> translate_pb2.Translator:
    """Give the contract's ``Translator``; URIs are set where the package's own is."""
    create_time = timestamp_pb2.Timestamp()
    create_time.FromDatetime(package.create_time)

    def uri(name: str) -> str:
        return f"{package.package_uri}/{name}" if package.package_uri and name in package.files else ""

    return translate_pb2.Translator(
        name=package.name,
        display_name=package.display_name,
        uid=package.uid,
        method=package.method,
        home_dataset=package.home_dataset,
        shifted_dataset=package.shifted_dataset,
        model=package.model,
        verdict="VERDICT_ACCEPTED" if package.accepted else "VERDICT_REJECTED",
        reason=package.reason,
        evidence=[record_to_proto(one) for one in package.evidence],
        package_uri=package.package_uri,
        report_uri=uri(_PAGE),
        create_time=create_time,
        digest=package.digest,
        changes="CHANGES_MODEL" if package.changes == MODEL else "CHANGES_IMAGE",
        criterion=package.criterion,
        contact_sheet_uri=uri(_SHEET),
    )
