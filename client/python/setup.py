"""Adds the generated messages, normserve/v1, to what setuptools builds from pyproject.toml.

They are made from ../../proto by grpcio-tools if Python has it, else by protoc and grpc_python_plugin (Debian:
protobuf-compiler, protobuf-compiler-grpc), so that they fit the protobuf that is installed beside them. They go into the
build, not into the tree, except in an editable install, where git ignores them.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

from setuptools import setup
from setuptools.command.build_py import build_py

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def generator():
    """The command that makes Python of .proto files, without its arguments."""
    try:
        import grpc_tools.protoc  # noqa: F401

        return [sys.executable, "-m", "grpc_tools.protoc"]
    except ImportError:
        protoc, plugin = shutil.which("protoc"), shutil.which("grpc_python_plugin")
    if protoc and plugin:
        return [protoc, f"--plugin=protoc-gen-grpc_python={plugin}"]
    raise SystemExit("normserve: neither grpcio-tools nor protoc with grpc_python_plugin is here; on Debian: "
                     "apt-get install protobuf-compiler protobuf-compiler-grpc")


class BuildWithMessages(build_py):
    def run(self):
        super().run()
        folder = "." if self.editable_mode else self.build_lib
        if not PROTO.is_dir():
            raise SystemExit(f"normserve: {PROTO} is missing: build from a checkout of Normserve")
        subprocess.run([*generator(), "-I", PROTO, f"--python_out={folder}", f"--grpc_python_out={folder}",
                        *sorted(PROTO.glob("normserve/v1/*.proto"))], check=True)  # fmt: skip


# Away from the tree: setuptools would build on whatever an earlier build left there.
with tempfile.TemporaryDirectory() as scratch:
    setup(cmdclass={"build_py": BuildWithMessages},
          options={"build": {"build_base": scratch}, "egg_info": {"egg_base": scratch}})  # fmt: skip
