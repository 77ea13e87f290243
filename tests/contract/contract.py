"""The contract of normserve.v1 as text, and what may not happen to it.

    contract.py record   writes proto/normserve_v1.txt from the .proto files; refuses a break
    contract.py check    compares the .proto files with it, and with the numbers that proto/README.md keeps

The text has one line for each thing that a client can depend on, so that a change of the contract reads as a diff.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO_FOLDER = ROOT / "proto"
RECORD = PROTO_FOLDER / "normserve_v1.txt"
README = PROTO_FOLDER / "README.md"
RECORD_HEADING = """\
# The contract of normserve.v1 as it was last recorded. Made by tests/contract/contract.py; do not edit.
# Nothing here may be removed or changed; see proto/README.md.
"""

_FIELD = descriptor_pb2.FieldDescriptorProto
# Numbers of fields in descriptor.proto that make up the paths of SourceCodeInfo.
_FILE_MESSAGE, _FILE_ENUM, _FILE_SERVICE = 4, 5, 6
_MESSAGE_FIELD, _MESSAGE_NESTED, _MESSAGE_ENUM = 2, 3, 4
_ENUM_VALUE, _SERVICE_METHOD = 2, 2


def compile_protos(folder, protoc="protoc"):
    """The descriptors, with comments, of every normserve/v1/*.proto below `folder`."""
    folder = pathlib.Path(folder)
    protos = sorted(str(path.relative_to(folder)) for path in folder.glob("normserve/v1/*.proto"))
    if not protos:
        raise FileNotFoundError(f"no normserve/v1/*.proto below {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "descriptors"
        subprocess.run([protoc, "-I", str(folder), "--include_source_info", f"--descriptor_set_out={out}", *protos],
                       check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())


def _type_text(field, map_entries):
    name = field.type_name.lstrip(".") or _FIELD.Type.Name(field.type)[len("TYPE_"):].lower()
    if name in map_entries:
        key, value = (_type_text(part, {}) for part in map_entries[name].field)
        return f"map<{key}, {value}>"
    return name


def _field_line(owner, field, map_entries):
    kind = _type_text(field, map_entries)
    if field.label == _FIELD.LABEL_REPEATED and not kind.startswith("map<"):
        kind = "repeated " + kind
    if field.proto3_optional:
        kind = "optional " + kind
    elif field.HasField("oneof_index"):
        kind += " in oneof " + owner.oneof_decl[field.oneof_index].name
    return f"{field.name}: {kind}"


def _describe_message(lines, prefix, message, file_name):
    full_name = f"{prefix}.{message.name}"
    lines[f"message {full_name}"] = f"in {file_name}"
    map_entries = {f"{full_name}.{nested.name}": nested for nested in message.nested_type if nested.options.map_entry}
    for field in sorted(message.field, key=lambda f: f.number):
        lines[f"field {full_name} {field.number}"] = _field_line(message, field, map_entries)
    for reserved in message.reserved_range:  # end is exclusive
        for number in range(reserved.start, reserved.end):
            lines[f"reserved {full_name} {number}"] = ""
    for name in message.reserved_name:
        lines[f"reserved-name {full_name} {name}"] = ""
    for nested in message.nested_type:
        if not nested.options.map_entry:
            _describe_message(lines, full_name, nested, file_name)
    for enum in message.enum_type:
        _describe_enum(lines, full_name, enum, file_name)


def _describe_enum(lines, prefix, enum, file_name):
    full_name = f"{prefix}.{enum.name}"
    lines[f"enum {full_name}"] = f"in {file_name}"
    for value in sorted(enum.value, key=lambda v: v.number):
        lines[f"value {full_name} {value.number}"] = value.name
    for reserved in enum.reserved_range:  # end is inclusive
        for number in range(reserved.start, reserved.end + 1):
            lines[f"reserved {full_name} {number}"] = ""
    for name in enum.reserved_name:
        lines[f"reserved-name {full_name} {name}"] = ""


def describe(descriptors):
    """{what: how it is} for everything that a client can depend on, in a stable order."""
    lines = {}
    for file in sorted(descriptors.file, key=lambda f: f.name):
        for index in file.public_dependency:
            lines[f"public {file.name} {file.dependency[index]}"] = ""
        for message in file.message_type:
            _describe_message(lines, file.package, message, file.name)
        for enum in file.enum_type:
            _describe_enum(lines, file.package, enum, file.name)
        for service in file.service:
            full_name = f"{file.package}.{service.name}"
            lines[f"service {full_name}"] = f"in {file.name}"
            for method in service.method:
                request = "stream " * method.client_streaming + method.input_type.lstrip(".")
                reply = "stream " * method.server_streaming + method.output_type.lstrip(".")
                lines[f"rpc {full_name} {method.name}"] = f"{request} -> {reply}"
    return lines


def to_text(contract):
    return RECORD_HEADING + "".join(f"{what} | {how}".rstrip() + "\n" for what, how in contract.items())


def from_text(text):
    contract = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            what, _, how = line.partition(" |")
            contract[what] = how.strip()
    return contract


def planned_numbers(readme_text):
    """{(message or enum, number): name} from the table in proto/README.md."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \|", readme_text, re.MULTILINE)
    return {(owner, int(number)): name for owner, number, name in rows}


def breaks(recorded, current, plan):
    """What in `current` breaks a client built on `recorded`; one sentence each."""
    found = []
    for what, how in recorded.items():
        kind, owner, *rest = what.split(" ")
        now = current.get(what)
        if now == how:
            continue
        # Moved to a file that its old one passes on: who includes the old one finds it there.
        if now and how.startswith("in ") and f"public {how[3:]} {now[3:]}" in current:
            continue
        if kind == "reserved":
            number = int(rest[0])
            now = current.get(f"field {owner} {number}") or current.get(f"value {owner} {number}")
            planned = plan.get((owner.rsplit(".", 1)[-1], number))
            if now is None:
                found.append(f"{owner}: number {number} is no longer reserved")
            elif now.split(":")[0] != planned:
                found.append(f"{owner}: number {number} is kept for {planned or 'nothing'}, not for {now}")
        elif what in current:
            found.append(f"{what}: was '{how}', is '{current[what]}'")
        else:
            found.append(f"{what} ({how}) is gone" if how else f"{what} is gone")
    return found


def plan_mismatches(current, plan):
    """Numbers that are reserved without a plan, or planned without being reserved."""
    found = []
    named = {what.split(" ")[1] for what in current if what.startswith("reserved-name ")}
    reserved = set()
    for what in current:
        kind, owner, *rest = what.split(" ")
        if kind == "reserved":
            key = (owner.rsplit(".", 1)[-1], int(rest[0]))
            reserved.add(key)
            # Where a name is reserved too, the number may be that of a deleted field: nothing is planned for it.
            if key not in plan and owner not in named:
                found.append(f"{owner}: number {key[1]} is reserved, but proto/README.md does not say for what")
    for (owner, number), name in plan.items():
        if (owner, number) not in reserved:
            found.append(f"proto/README.md keeps {owner} {number} for {name}, but the .proto does not reserve it")
    return found


def uncommented(descriptors):
    """Messages, fields, enums, values, services and RPCs without a comment."""
    missing = []
    for file in descriptors.file:
        commented = {tuple(location.path) for location in file.source_code_info.location
                     if location.leading_comments.strip() or location.trailing_comments.strip()}

        def need(path, name):
            if path not in commented:
                missing.append(f"{file.name}: {name}")

        def enum(path, prefix, item):
            need(path, f"{prefix}.{item.name}")
            for i, value in enumerate(item.value):
                need(path + (_ENUM_VALUE, i), f"{prefix}.{item.name}.{value.name}")

        def message(path, prefix, item):
            if item.options.map_entry:
                return
            full_name = f"{prefix}.{item.name}"
            need(path, full_name)
            for i, field in enumerate(item.field):
                need(path + (_MESSAGE_FIELD, i), f"{full_name}.{field.name}")
            for i, nested in enumerate(item.nested_type):
                message(path + (_MESSAGE_NESTED, i), full_name, nested)
            for i, nested in enumerate(item.enum_type):
                enum(path + (_MESSAGE_ENUM, i), full_name, nested)

        for i, item in enumerate(file.message_type):
            message((_FILE_MESSAGE, i), file.package, item)
        for i, item in enumerate(file.enum_type):
            enum((_FILE_ENUM, i), file.package, item)
        for i, item in enumerate(file.service):
            need((_FILE_SERVICE, i), f"{file.package}.{item.name}")
            for k, method in enumerate(item.method):
                need((_FILE_SERVICE, i, _SERVICE_METHOD, k), f"{file.package}.{item.name}.{method.name}")
    return missing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["record", "check"])
    parser.add_argument("--allow-break", action="store_true", help="record even a break (never after a release)")
    arguments = parser.parse_args()

    descriptors = compile_protos(PROTO_FOLDER)
    current = describe(descriptors)
    recorded = from_text(RECORD.read_text()) if RECORD.exists() else {}
    plan = planned_numbers(README.read_text())
    broken = breaks(recorded, current, plan)
    problems = broken + plan_mismatches(current, plan) + [f"no comment: {name}" for name in uncommented(descriptors)]
    for line in problems:
        print(line, file=sys.stderr)
    if arguments.action == "check":
        return 1 if problems else 0
    if broken and not arguments.allow_break:
        print("not recorded: a client built on the recorded contract would break", file=sys.stderr)
        return 1
    RECORD.write_text(to_text(current))
    print(f"recorded {len(current)} lines in {RECORD.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
