"""Requests against the contract's protovalidate rules."""

from __future__ import annotations

from typing import Any

import protovalidate
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from oteo_core.errors import InvalidArgument

_VALIDATOR = protovalidate.Validator()


class InvalidRequest(InvalidArgument):
    """A request breaks rules of the contract; every broken rule is named with its field."""

    default_reason = "INVALID_REQUEST"

    def __init__(self, violations: list[tuple[str, str, str]]) -> None:
        super().__init__("; ".join(f"{field or 'request'}: {text}" for field, text, _ in violations), field=violations[0][0])
        self.violations = violations

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling."""
        return (InvalidRequest, (self.violations,))

    def to_status(self) -> status_pb2.Status:
        """Give the status with one ``FieldViolation`` for each rule."""
        status = super().to_status()
        bad = error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=field, description=text, reason=rule.replace(".", "_").upper())
                for field, text, rule in self.violations
            ]
        )
        for detail in status.details:
            if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                detail.Pack(bad)
        return status


def _path(violation: Any) -> str:
    parts = []
    for element in violation.proto.field.elements if violation.proto.field is not None else ():
        text = element.field_name
        subscript = getattr(element, "subscript", None)
        value = getattr(subscript, "value", None)
        parts.append(f"{text}[{value}]" if value is not None else text)
    return ".".join(parts)


def validate(request: Any) -> None:
    """Check a request; bytes that are only passed on are not looked into.

    Raises
    ------
    InvalidRequest
        Rules are broken.
    """
    if not isinstance(request, Message):
        return
    violations = _VALIDATOR.collect_violations(request)
    if violations:
        raise InvalidRequest([(_path(v), v.proto.message or v.proto.rule_id, v.proto.rule_id) for v in violations])
