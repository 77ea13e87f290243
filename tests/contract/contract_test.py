"""The .proto files break no client of the recorded contract; and the comparison catches each kind of break."""

import os
import pathlib
import tempfile
import unittest

import contract

PROTOC = os.environ.get("NORMSERVE_PROTOC", "protoc")

# A contract with one of everything, to plant breaks in.
FIXTURE = """\
syntax = "proto3";
package normserve.v1;
// A service.
service S {
  // Asks.
  rpc Ask(Request) returns (Reply);
  // Asks again and again.
  rpc Listen(Request) returns (stream Reply);
}
// A request.
message Request {
  // A name.
  string name = 1;
  // With presence.
  optional double epsilon = 2;
  // One of two.
  oneof choice {
    // The first.
    double first = 3;
    // The second.
    int64 second = 4;
  }
  // Several.
  repeated double several = 5;
  // By key.
  map<string, int32> by_key = 6;
  // Kept for `later`.
  reserved 7;
  // Of a field that was deleted.
  reserved 8;
  reserved "deleted";
}
// A reply.
message Reply {
  // How.
  Kind kind = 1;
  // Inside.
  message Inner {
    // A value.
    int32 value = 1;
  }
  // A part.
  Inner inner = 2;
}
// A kind.
enum Kind {
  // Unset.
  KIND_UNSPECIFIED = 0;
  // Plain.
  KIND_PLAIN = 1;
  // Kept for KIND_FANCY.
  reserved 2;
}
"""
PLAN = contract.planned_numbers("""\
| `Request` | 7 | `later` | string | something |
| `Kind` | 2 | `KIND_FANCY` | | something |
""")

# What is done to the fixture, and a part of the sentence that must report it.
BREAKS = [
    ("field removed", "  string name = 1;\n", "", "field normserve.v1.Request 1"),
    ("field removed and its number reserved", "  string name = 1;\n", "  reserved 1;\n", "Request 1 (name: string) is gone"),
    ("field renumbered", "string name = 1;", "string name = 9;", "field normserve.v1.Request 1"),
    ("field retyped", "string name = 1;", "bytes name = 1;", "was 'name: string', is 'name: bytes'"),
    ("field renamed", "string name = 1;", "string title = 1;", "is 'title: string'"),
    ("numbers swapped", "double first = 3;\n    // The second.\n    int64 second = 4;",
     "double first = 4;\n    // The second.\n    int64 second = 3;", "Request 3"),
    ("presence removed", "optional double epsilon", "double epsilon", "is 'epsilon: double'"),
    ("presence added", "string name = 1;", "optional string name = 1;", "is 'name: optional string'"),
    ("single made repeated", "string name = 1;", "repeated string name = 1;", "is 'name: repeated string'"),
    ("repeated made single", "repeated double several", "double several", "is 'several: double'"),
    ("moved out of its oneof", "    int64 second = 4;\n  }", "  }\n  // The second.\n  int64 second = 4;",
     "is 'second: int64'"),
    ("oneof renamed", "oneof choice", "oneof option", "in oneof option"),
    ("map retyped", "map<string, int32>", "map<string, int64>", "map<string, int64>"),
    ("number un-reserved", "  reserved 7;\n", "", "number 7 is no longer reserved"),
    ("number of a deleted field used", "  reserved 8;\n", "  string again = 8;\n", "number 8 is kept for nothing"),
    ("kept number used for something else", "  reserved 7;\n", "  string other = 7;\n",
     "number 7 is kept for later, not for other"),
    ("reserved name removed", '  reserved "deleted";\n', "", "reserved-name normserve.v1.Request deleted"),
    ("nested field retyped", "int32 value = 1;", "int64 value = 1;", "Reply.Inner 1"),
    ("message renamed", "Inner", "Core", "message normserve.v1.Reply.Inner"),
    ("enum value removed", "  // Plain.\n  KIND_PLAIN = 1;\n", "", "KIND_PLAIN"),
    ("enum value renumbered", "KIND_PLAIN = 1;", "KIND_PLAIN = 3;", "KIND_PLAIN"),
    ("enum value renamed", "KIND_PLAIN = 1;", "KIND_SIMPLE = 1;", "KIND_SIMPLE"),
    ("enum number un-reserved", "  // Kept for KIND_FANCY.\n  reserved 2;\n", "", "number 2 is no longer reserved"),
    ("kept enum number used for something else", "  reserved 2;\n", "  KIND_OTHER = 2;\n", "not for KIND_OTHER"),
    ("RPC removed", "  rpc Ask(Request) returns (Reply);\n", "", "rpc normserve.v1.S Ask"),
    ("RPC renamed", "rpc Ask", "rpc Inquire", "rpc normserve.v1.S Ask"),
    ("request type changed", "rpc Ask(Request)", "rpc Ask(Reply)", "normserve.v1.Reply -> normserve.v1.Reply"),
    ("reply type changed", "rpc Ask(Request) returns (Reply)", "rpc Ask(Request) returns (Request)",
     "-> normserve.v1.Request"),
    ("reply streaming removed", "returns (stream Reply)", "returns (Reply)", "rpc normserve.v1.S Listen"),
    ("request streaming added", "rpc Ask(Request)", "rpc Ask(stream Request)", "stream normserve.v1.Request"),
    ("service renamed", "service S", "service T", "service normserve.v1.S"),
    ("package renamed", "package normserve.v1;", "package normserve.v2;", "message normserve.v1.Request"),
]

ADDITIONS = [
    ("field", "  // Several.", "  // New.\n  string fresh = 9;\n  // Several."),
    ("member of a oneof", "    // The second.", "    // The third.\n    string third = 10;\n    // The second."),
    ("kept number used as planned", "  reserved 7;\n", "  string later = 7;\n"),
    ("kept enum number used as planned", "  reserved 2;\n", "  KIND_FANCY = 2;\n"),
    ("enum value", "  // Plain.", "  // Third.\n  KIND_THIRD = 3;\n  // Plain."),
    ("message", "// A reply.", "// New.\nmessage Fresh {}\n// A reply."),
    ("RPC", "  // Asks.", "  // New.\n  rpc Fresh(stream Request) returns (stream Reply);\n  // Asks."),
    ("reserved number", "  reserved 7;\n", "  reserved 7, 20;\n"),
]


def compile_text(text, **others):
    """The descriptors of fixture.proto with `text`, and of other files by name."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {"fixture": text, **others}.items():
            path = pathlib.Path(folder) / "normserve" / "v1" / f"{name}.proto"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return contract.compile_protos(folder, PROTOC)


def planted(before, after):
    """The fixture with a change; every occurrence, so that a renamed type stays consistent."""
    changed = FIXTURE.replace(before, after)
    assert changed != FIXTURE, before
    return changed


class TheContract(unittest.TestCase):
    def setUp(self):
        self.descriptors = contract.compile_protos(contract.PROTO_FOLDER, PROTOC)
        self.current = contract.describe(self.descriptors)
        self.plan = contract.planned_numbers(contract.README.read_text())

    def test_breaks_no_client_of_the_recorded_one(self):
        recorded = contract.from_text(contract.RECORD.read_text())
        self.assertGreater(len(recorded), 200)
        self.assertEqual(contract.breaks(recorded, self.current, self.plan), [])
        new = [what for what in self.current if what not in recorded]
        if new:
            print(f"{len(new)} additions are not recorded yet (contract.py record): {', '.join(new[:5])} ...")

    def test_keeps_exactly_the_numbers_that_the_readme_explains(self):
        self.assertGreater(len(self.plan), 5)
        self.assertEqual(contract.plan_mismatches(self.current, self.plan), [])

    def test_comments_everything(self):
        self.assertEqual(contract.uncommented(self.descriptors), [])


class TheComparison(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.recorded = contract.from_text(contract.to_text(contract.describe(compile_text(FIXTURE))))

    def test_finds_nothing_in_an_unchanged_contract(self):
        current = contract.describe(compile_text(FIXTURE))
        self.assertEqual(self.recorded, current)
        self.assertEqual(contract.breaks(self.recorded, current, PLAN), [])

    def test_catches_every_planted_break(self):
        for name, before, after, report in BREAKS:
            with self.subTest(name):
                found = contract.breaks(self.recorded, contract.describe(compile_text(planted(before, after))), PLAN)
                self.assertTrue(any(report in line for line in found), found)

    def test_lets_additions_pass(self):
        for name, before, after in ADDITIONS:
            with self.subTest(name):
                current = contract.describe(compile_text(planted(before, after)))
                self.assertNotEqual(current, self.recorded)
                self.assertEqual(contract.breaks(self.recorded, current, PLAN), [])

    def test_lets_a_message_move_to_a_file_that_its_old_one_passes_on(self):
        kind = FIXTURE[FIXTURE.index("// A kind."):]
        header = 'syntax = "proto3";\npackage normserve.v1;\n'
        for how, report in [("import public", []), ("import", ["enum normserve.v1.Kind: was 'in "])]:
            with self.subTest(how):
                rest = FIXTURE.replace(kind, "").replace(header, header + f'{how} "normserve/v1/kinds.proto";\n')
                current = contract.describe(compile_text(rest, kinds=header + kind))
                found = contract.breaks(self.recorded, current, PLAN)
                self.assertEqual(len(found), len(report), found)
                self.assertTrue(all(part in line for part, line in zip(report, found)), found)

    def test_sees_a_reserved_number_without_a_plan_and_a_plan_without_a_reserved_number(self):
        current = contract.describe(compile_text(FIXTURE.replace("reserved 2;", "reserved 2, 5;")))
        self.assertTrue(any("number 5 is reserved" in line for line in contract.plan_mismatches(current, PLAN)))
        plan = {**PLAN, ("Reply", 3): "nowhere"}
        self.assertTrue(any("Reply 3 for nowhere" in line for line in contract.plan_mismatches(current, plan)))

    def test_sees_each_missing_comment(self):
        self.assertEqual(contract.uncommented(compile_text(FIXTURE)), [])
        for comment, name in [("// A service.\n", "normserve.v1.S"), ("  // Asks.\n", "normserve.v1.S.Ask"),
                              ("// A request.\n", "normserve.v1.Request"),
                              ("  // A name.\n", "normserve.v1.Request.name"),
                              ("    // The second.\n", "normserve.v1.Request.second"),
                              ("  // Inside.\n", "normserve.v1.Reply.Inner"),
                              ("    // A value.\n", "normserve.v1.Reply.Inner.value"),
                              ("// A kind.\n", "normserve.v1.Kind"), ("  // Plain.\n", "normserve.v1.Kind.KIND_PLAIN")]:
            with self.subTest(name):
                missing = contract.uncommented(compile_text(FIXTURE.replace(comment, "")))
                self.assertEqual(missing, [f"normserve/v1/fixture.proto: {name}"])


if __name__ == "__main__":
    unittest.main()
