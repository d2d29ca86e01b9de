"""Write a proto2 descriptor as the text of a .proto file.

For ``buf/validate/validate.proto`` alone, whose package carries a descriptor and no text. What that file has is written; what it has not
is refused, so that nothing is lost unseen. Left out on purpose: the rules of rules (the option ``predefined``, CEL for validators),
which generated code does not know, and comments, which the descriptor does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

LABELS = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional",
    FieldDescriptorProto.LABEL_REQUIRED: "required",
    FieldDescriptorProto.LABEL_REPEATED: "repeated",
}
LARGEST = (1 << 29) - 1
"""The largest number of a field, which the language calls ``max``."""


def file_text(file: FileDescriptorProto) -> str:
    """Give the text of a file.

    Raises
    ------
    ValueError
        The file has something that is not written here: another syntax than proto2, services, nested types, maps, groups, defaults, options
        of messages.
    """
    if file.syntax not in ("", "proto2") or file.service or file.public_dependency or file.weak_dependency:
        raise ValueError(f"{file.name}: only proto2 files of messages, enums and extensions can be written")
    lines = ['syntax = "proto2";', "", f"package {file.package};", ""]
    lines += [f'import "{name}";' for name in file.dependency]
    lines += ["", *_file_options(file)]
    for enum in file.enum_type:
        lines += ["", *_enum(enum)]
    for message in file.message_type:
        lines += ["", *_message(message)]
    for extended in dict.fromkeys(field.extendee for field in file.extension):
        fields = [line for field in file.extension if field.extendee == extended for line in _field(field)]
        lines += ["", f"extend {extended} {{", *_indented(fields), "}"]
    return "\n".join(lines) + "\n"


def _file_options(file: FileDescriptorProto) -> Iterator[str]:
    for option, value in file.options.ListFields():
        if option.is_extension or option.type not in (option.TYPE_STRING, option.TYPE_BOOL):
            raise ValueError(f"{file.name}: option {option.full_name} is not written")
        yield f"option {option.name} = {_quoted(value) if option.type == option.TYPE_STRING else str(value).lower()};"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _ranges(ranges: Iterable[tuple[int, int]]) -> str:
    """Give ranges of numbers, both ends inclusive."""
    return ", ".join(str(first) if first == last else f"{first} to {'max' if last >= LARGEST else last}" for first, last in ranges)


def _enum(enum: EnumDescriptorProto) -> list[str]:
    if enum.options.ListFields():
        raise ValueError(f"{enum.name}: options of enums are not written")
    body = [f"{value.name} = {value.number};" for value in enum.value]
    if enum.reserved_range:
        body.append(f"reserved {_ranges((taken.start, taken.end) for taken in enum.reserved_range)};")
    if enum.reserved_name:
        body.append(f"reserved {', '.join(map(_quoted, enum.reserved_name))};")
    return [f"enum {enum.name} {{", *_indented(body), "}"]


def _message(message: DescriptorProto) -> list[str]:
    if message.nested_type or message.enum_type or message.extension or message.options.ListFields():
        raise ValueError(f"{message.name}: nested types and options of messages are not written")
    body: list[str] = []
    opened: set[int] = set()
    for field in message.field:
        if not field.HasField("oneof_index"):
            body += _field(field)
        elif field.oneof_index not in opened:
            # A oneof's fields are written together, where its first is.
            opened.add(field.oneof_index)
            members = [line for other in message.field if _in_oneof(other, field.oneof_index) for line in _field(other)]
            body += [f"oneof {message.oneof_decl[field.oneof_index].name} {{", *_indented(members), "}"]
    # Descriptors of messages have the end of a range behind its last number.
    if message.reserved_range:
        body.append(f"reserved {_ranges((taken.start, taken.end - 1) for taken in message.reserved_range)};")
    if message.reserved_name:
        body.append(f"reserved {', '.join(map(_quoted, message.reserved_name))};")
    if message.extension_range:
        body.append(f"extensions {_ranges((free.start, free.end - 1) for free in message.extension_range)};")
    return [f"message {message.name} {{", *_indented(body), "}"]


def _in_oneof(field: FieldDescriptorProto, index: int) -> bool:
    return field.HasField("oneof_index") and field.oneof_index == index


def _field(field: FieldDescriptorProto) -> list[str]:
    if field.type == FieldDescriptorProto.TYPE_GROUP or field.HasField("default_value"):
        raise ValueError(f"{field.name}: groups and defaults are not written")
    label = "" if field.HasField("oneof_index") else LABELS[field.label] + " "
    kind = field.type_name or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    options = []
    for option, value in field.options.ListFields():
        if option.is_extension:
            continue
        if option.type != option.TYPE_BOOL:
            raise ValueError(f"{field.name}: option {option.full_name} is not written")
        options.append(f"{option.name} = {str(value).lower()}")
    return [f"{label}{kind} {field.name} = {field.number}{' [' + ', '.join(options) + ']' if options else ''};"]
