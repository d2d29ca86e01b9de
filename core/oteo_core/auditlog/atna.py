"""Records as audit messages of DICOM, which IHE's ATNA profile uses, and in the frame that syslog carries them in.

Sources: DICOM PS3.15 A.5 (the schema in A.5.1, conventions in A.5.2), PS3.16 CID 400 (event ids), CID 401 (types of event), CID 402 (roles); IHE ITI TF-2
3.20 (Record Audit Event); RFC 5424 (syslog's frame). What has no code there is in the scheme ``99OTEO``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

_OWN = "99OTEO"
_READS = ("Get", "List", "Compare", "Wait", "Model", "Server")
_ACTIONS = (
    ("D", ("Delete", "Cancel")),
    ("U", ("Update", "Rollback")),
    ("C", ("Create", "Train", "Import", "Upload", "Augment", "Submit", "Translate", "Combine")),
    ("R", ("Get", "List", "Compare", "Export", "Wait", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "Server")),
)

_ACTIVITY = ("110100", "Application Activity")
_USED = ("110101", "Audit Log Used")
_EXPORT = ("110106", "Export")
_IMPORT = ("110107", "Import")
_QUERY = ("110112", "Query")
_ALERT = ("110113", "Security Alert")
_AUTHENTICATION = ("110114", "User Authentication")

_OWN_EVENTS: Mapping[str, tuple[tuple[str, str], tuple[str, str, str]]] = {
    "log.start": (_ACTIVITY, ("110120", "DCM", "Application Start")),
    "log.stop": (_ACTIVITY, ("110121", "DCM", "Application Stop")),
    "log.gap": (_ALERT, ("110133", "DCM", "Audit Recording Stopped")),
    "log.recovered": (_ALERT, ("110134", "DCM", "Audit Recording Started")),
    "log.left": (_ALERT, ("log.left", _OWN, "Chain not continued")),
    "log.forgotten": (_USED, ("log.forgotten", _OWN, "Retention")),
    "log.refusals": (_ALERT, ("log.refusals", _OWN, "Refusals counted")),
}

_ROLE_OF_OBJECT: Mapping[str, tuple[str, str]] = {
    # Type 2 is a system's object; roles: 3 report, 4 domain resource, 20 job, 13 security resource.
    "operations": ("2", "20"),
    "pipelines": ("2", "20"),
}


def _name(action: str) -> str:
    return action.rpartition("/")[2]


def _event(record: Mapping[str, Any]) -> tuple[tuple[str, str], tuple[str, str, str]]:
    """Give the event's id and type: code and meaning; code, scheme and meaning."""
    action, code = str(record["action"]), str(record.get("code", ""))
    own = _OWN_EVENTS.get(action)
    if own is not None:
        return own
    if code == "UNAUTHENTICATED":
        return _AUTHENTICATION, ("110122", "DCM", "Login")
    if code == "PERMISSION_DENIED":
        return _ALERT, ("110132", "DCM", "Use of Restricted Function")
    name = _name(str(record.get("used", {}).get("method", "")) or action)
    kind = (name, _OWN, name)
    if name.startswith("Export"):
        return _EXPORT, kind
    if name.startswith(("Import", "Upload")):
        return _IMPORT, kind
    if name.startswith(_READS) and name not in ("ModelInfer", "ModelStreamInfer"):
        return _QUERY, kind
    return _ACTIVITY, kind


def _action_code(record: Mapping[str, Any]) -> str:
    if str(record["action"]) in _OWN_EVENTS:
        return "E"
    name = _name(str(record["action"]))
    return next((code for code, begins in _ACTIONS if name.startswith(begins)), "E")


def _outcome(record: Mapping[str, Any]) -> str:
    """Give the outcome: 0 success, 4 the caller's or the request's fault, 8 a fault of ours, 12 not available at all."""
    code = str(record.get("code", "")) or "OK"
    if code == "OK":
        return "0"
    if code == "UNAVAILABLE":
        return "12"
    return "8" if code in ("INTERNAL", "DATA_LOSS", "UNKNOWN") else "4"


def _coded(parent: ElementTree.Element, element: str, code: str, scheme: str, meaning: str) -> None:
    ElementTree.SubElement(parent, element, {"csd-code": code, "codeSystemName": scheme, "originalText": meaning})


def message(record: Mapping[str, Any], site: str = "") -> bytes:
    """Give a record as an audit message, XML in UTF-8.

    Parameters
    ----------
    record
        As the log has it.
    site
        Name of the site, for ``AuditEnterpriseSiteID``; empty: none.
    """
    root = ElementTree.Element("AuditMessage")
    (event, meaning), (kind, scheme, kind_meaning) = _event(record)
    identification = ElementTree.SubElement(
        root,
        "EventIdentification",
        {"EventActionCode": _action_code(record), "EventDateTime": str(record["time"]), "EventOutcomeIndicator": _outcome(record)},
    )
    _coded(identification, "EventID", event, "DCM", meaning)
    _coded(identification, "EventTypeCode", kind, scheme, kind_meaning)
    outcome = " ".join(str(record[name]) for name in ("code", "reason") if record.get(name))
    if outcome:
        ElementTree.SubElement(identification, "EventOutcomeDescription").text = outcome
    _participants(root, record)
    source = {"AuditSourceID": str(record["chain"])}
    if site:
        source["AuditEnterpriseSiteID"] = site
    # 4: a process of an application server.
    ElementTree.SubElement(ElementTree.SubElement(root, "AuditSourceIdentification", source), "AuditSourceTypeCode", {"csd-code": "4"})
    _objects(root, record)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _participants(root: ElementTree.Element, record: Mapping[str, Any]) -> None:
    if record.get("actor"):
        caller = {"UserID": str(record["actor"]), "UserIsRequestor": "true"}
        if record.get("source"):
            # 2: an address of the Internet protocol.
            caller |= {"NetworkAccessPointID": str(record["source"]), "NetworkAccessPointTypeCode": "2"}
        person = ElementTree.SubElement(root, "ActiveParticipant", caller)
        for role in record.get("roles", ()):
            _coded(person, "RoleIDCode", str(role), _OWN, str(role))
    process = {"UserID": str(record["chain"]), "AlternativeUserID": str(record.get("boot", "")), "UserIsRequestor": "false"}
    application = ElementTree.SubElement(root, "ActiveParticipant", process)
    _coded(application, "RoleIDCode", "110150", "DCM", "Application")


def _objects(root: ElementTree.Element, record: Mapping[str, Any]) -> None:
    details = {"seq": str(record["seq"]), "hash": str(record.get("hash", ""))}
    if record.get("request"):
        details["request"] = str(record["request"])
    used = dict(record.get("used", {}))
    named = [str(record["resource"])] if record.get("resource") else []
    for name in ("deployment", "model", "translator", "dataset", "operation"):
        other = str(used.pop(name, ""))
        if other and other not in named:
            named.append(other)
    details.update({name: str(value) for name, value in used.items()})
    if _event(record)[0] == _QUERY and not named:
        named.append(str(record["action"]))
    # What belongs to no object belongs to the record itself: every message says where in the log it stands.
    for number, name in enumerate([*named, f"{record['chain']}/{record['seq']}"]):
        kind, role = ("2", "13") if number == len(named) else _ROLE_OF_OBJECT.get(name.partition("/")[0], ("2", "4"))
        item = ElementTree.SubElement(
            root,
            "ParticipantObjectIdentification",
            {"ParticipantObjectID": name, "ParticipantObjectTypeCode": kind, "ParticipantObjectTypeCodeRole": role},
        )
        meaning = "audit record" if number == len(named) else name.partition("/")[0]
        _coded(item, "ParticipantObjectIDTypeCode", meaning.replace(" ", "-"), _OWN, meaning)
        if number == len(named):
            for key, value in details.items():
                ElementTree.SubElement(
                    item, "ParticipantObjectDetail", {"type": key, "value": base64.b64encode(value.encode()).decode("ascii")}
                )


def syslog(record: Mapping[str, Any], body: bytes, host: str) -> bytes:
    """Put an audit message into syslog's frame (RFC 5424): facility 10 (security), severity 5 or, of what did not succeed, 4."""
    priority = 10 * 8 + (5 if _outcome(record) == "0" else 4)
    header = f"<{priority}>1 {record['time']} {host or '-'} oteo {record.get('boot') or '-'} IHE+RFC-3881 - "
    return header.encode("ascii", "replace") + b"\xef\xbb\xbf" + body
