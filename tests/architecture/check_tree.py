"""What must be true of the tree itself: who may include whom, what lies where, what no file may say.

    /usr/bin/python3 tests/architecture/check_tree.py [ROOT]

Prints one line a violation and exits 1 if there is any. ARCHITECTURE.md explains the layers; LAYERS below enforces
them. tree_test.py plants a violation of each rule and expects it to be found.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """A set of files and what they may include, beside their own layer and the libraries everybody may use."""

    name: str
    files: str  # regular expression on the path from the root
    may_include: str = r"$^"  # regular expression on the path of another file of this tree
    libraries: tuple = ()  # of RESTRICTED


# Libraries that only some layers may know, by what their headers are called.
RESTRICTED = {
    "the wire (gRPC, protobuf, generated messages)": r"(grpc|grpcpp|google/protobuf)/|.*\.pb\.h$",
    "Vulkan": r"vulkan/|volk\.h$|vk_",
    "the admin port's libraries (cpp-httplib, prometheus-cpp)": r"httplib\.h$|prometheus/",
}
WIRE, VULKAN, ADMIN = RESTRICTED

# What the mathematics promises to those above it, whatever computes it.
_ENGINE = r"kernels/(engine|batch_norm|element_type|error_reason|check)\.h"

# The first that matches a file is its layer.
LAYERS = (
    Layer("kernels/vulkan", r"kernels/vulkan/", r"kernels/(error_reason|check)\.h", (VULKAN,)),
    # A pure function: of the devices it knows their limits only.
    Layer("kernels/dispatch_plan", r"kernels/dispatch_plan\.", _ENGINE + r"|kernels/vulkan/device_limits\.h"),
    Layer("kernels/vulkan_engine", r"kernels/(vulkan_engine|\w+_recording|pipelines|channel_nodes|kept_tensor|self_test|tensor_\w+)\.", r"kernels/"),
    Layer("kernels", r"kernels/"),
    # Pure functions of moments.
    Layer("server/moments", r"server/moments/", r"kernels/(batch_norm|error_reason|check)\.h"),
    # A file format.
    Layer("server/checkpoint", r"server/checkpoint/", r"kernels/(batch_norm|element_type|error_reason|check)\.h"),
    Layer("server/session", r"server/session/", _ENGINE + r"|server/moments/|server/store/state_store\.h"),
    Layer("server/store", r"server/store/", r"kernels/(error_reason|check)\.h"),
    Layer("server/rpc", r"server/rpc/", _ENGINE + r"|server/(session|moments|checkpoint)/", (WIRE,)),
    # Of server/rpc what knows no gRPC.
    Layer("server/observe", r"server/observe/", _ENGINE + r"|server/(session|moments)/"
          r"|server/rpc/(call_gate|call_observer|server_description)\.h", (ADMIN,)),
    Layer("server/main", r"server/", r"server/|kernels/[^/]*\.h", (WIRE,)),
    Layer("client/cli/doctor", r"client/cli/doctor", r"client/|kernels/vulkan/|" + _ENGINE, (WIRE, VULKAN)),
    Layer("client", r"client/", r"client/", (WIRE,)),
    Layer("tests", r"tests/", r"", (WIRE, VULKAN, ADMIN)),
)

SOURCE = re.compile(r"\.(h|cc|comp|glsl)$")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
# Made while building, included by these names.
GENERATED = re.compile(r"normserve/v1/\w+\.(grpc\.)?pb\.h$|normserve/v1/\w+_mock\.grpc\.pb\.h$|kernels/shaders/\w+\.spv\.h$"
                       r"|server/observe/page/\w+\.\w+\.h$")
# Where an include is looked for, beside the including file's own folder. The client's headers are installed as
# normserve/…, and included so here too.
INCLUDE_ROOTS = ("", "client/", "kernels/shaders/")

TOP_LEVEL = {
    "proto", "server", "client", "kernels", "deploy", "tests", "cmake", "CMakeLists.txt", "CMakePresets.json",
    "Dockerfile", "dev", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE",
    ".clang-format", ".clang-tidy", ".gitignore", ".dockerignore", ".ci",
}  # fmt: skip

README_LINES = 30
# The contract's page holds the whole of v1 as drafted, and speaks for the folders of .proto files below it.
LONG_README = "proto/README.md"
DESCRIBED_ABOVE = re.compile(r"proto/.+")

VAGUE_NAME = re.compile(r"(^|_)(utils?|common|helpers?|managers?|misc)(_|$)", re.IGNORECASE)

# The patterns spell a letter as a class so that this file does not hold what it looks for.
FORBIDDEN_TEXT = (
    ("an absolute path of one machine", re.compile(r"(?<![\w.$}])/(wor[k]|roo[t]|hom[e]/\w{2,}|tmp/bas[h]_jobs)/")),
    ("the name of a package host", re.compile(
        r"\b(deb|security|archive|snapshot|ftp)\.(debia[n]|ubunt[u])\.(org|com)\b|\bregistry\.npmj[s]\.org\b"
        r"|\bpyp[i]\.org\b|\bproxy\.golan[g]\.org\b")),
)  # fmt: skip


def tracked_files(root):
    """Paths from `root` of what git tracks or would; of every file but build output where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True).stdout.decode().split("\0")  # fmt: skip
        return sorted(path for path in listed if path and os.path.isfile(os.path.join(root, path)))
    except (OSError, subprocess.CalledProcessError):
        pass
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in (".git", "build", "__pycache__")]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read()


def layer_of(path):
    return next((layer for layer in LAYERS if re.match(layer.files, path)), None)


def resolve(include, includer, paths):
    """The path in this tree that `include` means, or None when it is not of this tree."""
    own = os.path.normpath(os.path.join(os.path.dirname(includer), include))
    for candidate in [*(prefix + include for prefix in INCLUDE_ROOTS), own]:
        if candidate in paths:
            return candidate
    return None


def check_includes(root, paths):
    known = set(paths)
    for path in paths:
        if not SOURCE.search(path):
            continue
        layer = layer_of(path)
        if layer is None:
            yield f"{path}: belongs to no layer: name its folder in LAYERS of tests/architecture/check_tree.py"
            continue
        for include in INCLUDE.findall(read(root, path)):
            target = resolve(include, path, known)
            if target is None and re.match(r"(kernels|server|client|tests|proto)/", include):
                if not GENERATED.match(include):
                    yield f"{path}: includes {include}, which does not exist (includes start at the root)"
                    continue
            for library, headers in RESTRICTED.items():
                if target is None and re.match(headers, include) and library not in layer.libraries:
                    yield f"{path}: includes {include}, but {layer.name} may not know {library}"
            if target is not None and not (re.match(layer.files, target) and layer_of(target) == layer
                                           or re.match(layer.may_include, target)):  # fmt: skip
                yield f"{path}: includes {target}, which {layer.name} may not include"


def check_runtime_words(root, paths):
    """kernels/vulkan is a Vulkan runtime for anything; what it runs is not its business."""
    for path in paths:
        if path.startswith("kernels/vulkan/") and re.search(r"batch.?norm", read(root, path), re.IGNORECASE):
            yield f"{path}: says what the shaders compute; kernels/vulkan does not know"


def check_top_level(root, paths):
    for name in sorted({path.split("/")[0] for path in paths} - TOP_LEVEL):
        yield f"{name}: is not one of the entries that the top level holds"


def check_readmes(root, paths):
    folders = {os.path.dirname(path) for path in paths} - {"", ".ci"}
    for folder in sorted(folders):
        readme = folder + "/README.md"
        if DESCRIBED_ABOVE.match(folder):
            continue
        if readme not in paths:
            yield f"{folder}: has no README.md (purpose, what it may include, where to start)"
        elif readme != LONG_README and len(read(root, readme).splitlines()) > README_LINES:
            yield f"{readme}: is longer than {README_LINES} lines"


def check_names(root, paths):
    for path in paths:
        for part in path.split("/"):
            if VAGUE_NAME.search(part.split(".")[0]):
                yield f"{path}: '{part}' says nothing; name it after the thing it holds"


def check_headers(root, paths):
    for path in paths:
        if path.endswith(".h") and not re.search(r"^#pragma once$", read(root, path), re.MULTILINE):
            yield f"{path}: has no #pragma once"


def check_text(root, paths):
    for path in paths:
        for number, line in enumerate(read(root, path).splitlines(), start=1):
            for what, pattern in FORBIDDEN_TEXT:
                if pattern.search(line):
                    yield f"{path}:{number}: names {what}"


RULES = (
    check_includes, check_runtime_words, check_top_level, check_readmes, check_names, check_headers, check_text,
)  # fmt: skip


def violations(root):
    paths = tracked_files(root)
    return [violation for rule in RULES for violation in rule(root, paths)]


def main():
    found = violations(sys.argv[1] if len(sys.argv) > 1 else ".")
    for violation in found:
        print(violation)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
