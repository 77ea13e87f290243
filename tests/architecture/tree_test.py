"""The tree follows its rules, and each rule finds a violation that is planted."""

import contextlib
import io
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check_proto  # noqa: E402
import check_tree  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# Files of a small tree that follows every rule; a test adds to it or replaces one.
CLEAN = {
    "kernels/README.md": "Mathematics.\n",
    "kernels/engine.h": "#pragma once\n#include <vector>\n#include \"absl/status/status.h\"\n",
    "kernels/batch_norm.h": "#pragma once\n",
    "kernels/reference_engine.h": "#pragma once\n#include \"kernels/engine.h\"\n",
    "kernels/vulkan_engine.h": "#pragma once\n#include \"kernels/engine.h\"\n#include \"kernels/vulkan/device.h\"\n",
    "kernels/dispatch_plan.h": '#pragma once\n#include "kernels/vulkan/device_limits.h"\n',
    "kernels/forward_recording.h": '#pragma once\n#include "kernels/vulkan/device.h"\n#include "kernels/dispatch_plan.h"\n',
    "kernels/vulkan/device_limits.h": "#pragma once\n",
    "kernels/vulkan/README.md": "A runtime.\n",
    "kernels/vulkan/device.h": "#pragma once\n#include <volk.h>\n",
    "server/README.md": "The server.\n",
    "server/main.cc": "#include \"kernels/vulkan_engine.h\"\n#include \"server/rpc/service.h\"\n",
    "server/moments/README.md": "Moments.\n",
    "server/moments/merge.h": '#pragma once\n#include "kernels/batch_norm.h"\n',
    "server/session/README.md": "Sessions.\n",
    "server/session/session.h": '#pragma once\n#include "kernels/engine.h"\n#include "server/moments/merge.h"\n',
    "server/rpc/README.md": "Adapters.\n",
    "server/rpc/service.h": "#pragma once\n#include <grpcpp/grpcpp.h>\n#include \"server/session/session.h\"\n"
                            "#include \"normserve/v1/session.pb.h\"\n",
    "server/rpc/call_gate.h": "#pragma once\n",
    "server/observe/README.md": "The admin port.\n",
    "server/observe/http_server.h": '#pragma once\n#include <httplib.h>\n#include "server/rpc/call_gate.h"\n',
    "client/normserve/README.md": "The library.\n",
    "client/normserve/client.h": "#pragma once\n#include \"normserve/v1/session.pb.h\"\n",
    "client/cli/README.md": "normctl.\n",
    "client/cli/doctor.cc": "#include \"kernels/vulkan/device.h\"\n#include \"normserve/client.h\"\n",
}  # fmt: skip

# path, what is written there, a part of the violation expected
PLANTED = (
    ("kernels/engine.h", '#pragma once\n#include "server/session/session.h"\n', "kernels may not include"),
    ("kernels/engine.h", "#pragma once\n#include <grpcpp/grpcpp.h>\n", "kernels may not know the wire"),
    ("kernels/engine.h", '#pragma once\n#include "normserve/v1/session.pb.h"\n', "kernels may not know the wire"),
    ("kernels/engine.h", "#pragma once\n#include <vulkan/vulkan.h>\n", "kernels may not know Vulkan"),
    ("kernels/engine.h", '#pragma once\n#include "kernels/vulkan/device.h"\n', "kernels may not include"),
    ("kernels/engine.h", '#pragma once\n#include "kernels/vulkan_engine.h"\n', "kernels may not include"),
    ("kernels/engine.h", '#pragma once\n#  include "kernels/missing.h"\n', "does not exist"),
    ("kernels/dispatch_plan.h", '#pragma once\n#include "kernels/vulkan/device.h"\n', "dispatch_plan may not include"),
    ("kernels/vulkan_engine.h", "#pragma once\n#include <volk.h>\n", "may not know Vulkan"),
    ("kernels/vulkan/device.h", '#pragma once\n#include "kernels/engine.h"\n', "kernels/vulkan may not include"),
    ("kernels/vulkan/device.h", '#pragma once\n#include "../engine.h"\n', "kernels/vulkan may not include"),
    ("kernels/vulkan/device.h", "#pragma once\n// for batch norm\n", "says what the shaders compute"),
    ("server/moments/merge.h", '#pragma once\n#include "kernels/engine.h"\n', "moments may not include"),
    ("server/moments/merge.h", '#pragma once\n#include "server/session/session.h"\n', "moments may not include"),
    ("server/moments/merge.h", "#pragma once\n#include <grpcpp/grpcpp.h>\n", "moments may not know the wire"),
    ("server/session/session.h", '#pragma once\n#include "google/protobuf/message.h"\n', "may not know the wire"),
    ("server/session/session.h", '#pragma once\n#include "kernels/vulkan_engine.h"\n', "session may not include"),
    ("server/session/session.h", '#pragma once\n#include "server/rpc/service.h"\n', "session may not include"),
    ("server/rpc/service.h", '#pragma once\n#include "kernels/reference_engine.h"\n', "rpc may not include"),
    ("server/rpc/service.h", '#pragma once\n#include "client/normserve/client.h"\n', "rpc may not include"),
    ("server/session/session.h", "#pragma once\n#include <httplib.h>\n", "may not know the admin port's libraries"),
    ("server/observe/http_server.h", '#pragma once\n#include "server/rpc/service.h"\n', "observe may not include"),
    ("server/observe/http_server.h", "#pragma once\n#include <grpcpp/grpcpp.h>\n", "observe may not know the wire"),
    ("server/main.cc", '#include "kernels/vulkan/device.h"\n', "server/main may not include"),
    ("server/main.cc", '#include "client/normserve/client.h"\n', "server/main may not include"),
    ("client/normserve/client.h", '#pragma once\n#include "server/session/session.h"\n', "client may not include"),
    ("client/normserve/client.h", '#pragma once\n#include "kernels/engine.h"\n', "client may not include"),
    ("client/cli/show.cc", '#include "kernels/vulkan/device.h"\n', "client may not include"),
    ("elsewhere/x.cc", "", "belongs to no layer"),
    ("elsewhere/README.md", "", "not one of the entries"),
    ("notes.txt", "", "not one of the entries"),
    ("server/store/state_store.h", "#pragma once\n", "server/store: has no README.md"),
    ("server/README.md", "line\n" * 31, "longer than 30 lines"),
    ("server/session_utils.h", "#pragma once\n", "says nothing"),
    ("server/session/helpers/README.md", "", "says nothing"),
    ("server/session/session.h", "int x;\n", "no #pragma once"),
    ("server/README.md", "see /wor" + "k/notes\n", "absolute path of one machine"),
    ("server/README.md", "see /hom" + "e/someone/notes\n", "absolute path of one machine"),
    ("server/README.md", "get it from deb.debia" + "n.org\n", "package host"),
)  # fmt: skip


class TreeTest(unittest.TestCase):
    def check(self, changes):
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**CLEAN, **changes}.items():
                os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            return check_tree.violations(root)

    def test_this_tree_follows_every_rule(self):
        self.assertEqual(check_tree.violations(ROOT), [])

    def test_clean_tree_has_no_violation(self):
        self.assertEqual(self.check({}), [])

    def test_each_planted_violation_is_found(self):
        for path, text, expected in PLANTED:
            with self.subTest(path=path, text=text[:60]):
                found = self.check({path: text})
                self.assertTrue(any(expected in violation for violation in found), found)

    def test_program_exits_1_and_names_the_file(self):
        output = io.StringIO()
        with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(output):
            open(os.path.join(root, "stray.txt"), "w", encoding="utf-8").close()
            sys.argv = ["check_tree.py", root]
            self.assertEqual(check_tree.main(), 1)
        self.assertIn("stray.txt", output.getvalue())


class ProtoCommentsTest(unittest.TestCase):
    def test_everything_in_the_contract_is_commented(self):
        self.assertEqual(check_proto.violations(os.path.join(ROOT, "proto")), [])

    def test_an_uncommented_declaration_is_found(self):
        commented = "// A.\nmessage A {\n  // B.\n  int32 b = 1;\n  oneof c {\n    // D.\n    Map<int, x.Y> d = 2;\n  }\n}\n"
        self.assertEqual(check_proto.uncommented(commented), [])
        for bare in ("// A.\n", "  // B.\n", "    // D.\n"):
            self.assertEqual(len(check_proto.uncommented(commented.replace(bare, ""))), 1, bare)
        for declaration in (
            "enum E {", "service S {", "  rpc F(A) returns (B);", "  rpc F(A) returns (B) {", "  E_UNSPECIFIED = 0;",
            "  optional double x = 2;", "  repeated .a.B x = 3 [packed = true];", "  map<string, int64> x = 4;",
        ):  # fmt: skip
            self.assertEqual(len(check_proto.uncommented(declaration)), 1, declaration)
            self.assertEqual(check_proto.uncommented("// It is.\n" + declaration), [], declaration)
            self.assertEqual(len(check_proto.uncommented("// It is.\n\n" + declaration)), 1, declaration)


if __name__ == "__main__":
    unittest.main()
