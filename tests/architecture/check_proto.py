"""Every message, field, enum value, service and RPC of the contract has a comment directly above it.

    /usr/bin/python3 tests/architecture/check_proto.py proto
"""

import os
import re
import sys

# A oneof's own meaning is its members'.
DECLARATION = re.compile(
    r"""^\s*(
        (message|enum|service|rpc)\s+\w+                              # a block or a call
      | (optional\s+|repeated\s+)?(map\s*<[^>]*>|[\w.]+(<[^>]*>)?)\s+\w+\s*=\s*\d+\s*[;\[]  # a field
      | [A-Z][A-Z0-9_]*\s*=\s*-?\d+\s*[;\[]                           # an enum value
    )""",
    re.VERBOSE | re.IGNORECASE,
)
NOT_A_FIELD = re.compile(r"^\s*(option|syntax|package|import|reserved|oneof|extensions)\b")


def uncommented(text):
    """(line number, declaration) of each declaration without a comment on the line above or at its end."""
    found = []
    previous = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if DECLARATION.match(line) and not NOT_A_FIELD.match(line):
            if not previous.lstrip().startswith("//") and "//" not in line:
                found.append((number, line.strip()))
        previous = line
    return found


def violations(folder):
    result = []
    for directory, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.endswith(".proto"):
                path = os.path.join(directory, name)
                with open(path, encoding="utf-8") as file:
                    text = file.read()
                result += [f"{path}:{number}: no comment above: {line}" for number, line in uncommented(text)]
    return result


def main():
    found = violations(sys.argv[1] if len(sys.argv) > 1 else "proto")
    for violation in found:
        print(violation)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
