"""The compiled shaders hold no floating-point operation whose bits a driver may choose."""
import glob
import os
import re
import subprocess
import sys
import unittest

# Correctly rounded in SPIR-V once nothing may be fused with them.
EXACT = {"OpFAdd", "OpFSub", "OpFMul", "OpVectorTimesScalar"}
# Touch floats without rounding.
EXACT_ALWAYS = {"OpFNegate", "OpFOrdLessThan", "OpFOrdGreaterThan"}
INTEGER_INSTRUCTIONS = {"UMin", "UMax", "SMin", "SMax"}
FLOAT_OPERATION = re.compile(r"OpF(?!unction)\w+|OpVectorTimes\w+|OpMatrix\w+|OpDot|OpOuterProduct|OpExtInst\b|"
                             r"OpGroup\w+|OpConvert\w+|OpQuantize\w+")


def violations(assembly):
    """What in `assembly`, the text of spirv-dis, a driver may round as it likes."""
    exact = set(re.findall(r"OpDecorate (%\w+) NoContraction", assembly))
    found = []
    for result, operation, operands in re.findall(r"^\s*(%\w+) = (Op\w+)(.*)", assembly, re.MULTILINE):
        if operation == "OpExtInst" and operands.split()[2] in INTEGER_INSTRUCTIONS:
            continue
        if operation in EXACT:
            if result not in exact:
                found.append(f"{operation} {result} may be fused")
        elif FLOAT_OPERATION.fullmatch(operation) and operation not in EXACT_ALWAYS:
            found.append(f"{operation} {result} is not exactly rounded everywhere")
    return found


def disassemble(path):
    return subprocess.run(["spirv-dis", "--raw-id", path], check=True, stdout=subprocess.PIPE, text=True).stdout


class SpirvTest(unittest.TestCase):
    def test_every_operation_is_exact_and_not_fused(self):
        self.assertGreaterEqual(len(SHADERS), 50)
        for path in SHADERS:
            with self.subTest(shader=os.path.basename(path)):
                assembly = disassemble(path)
                self.assertGreater(assembly.count("OpFAdd"), 0, "a shader without arithmetic: the wrong file?")
                self.assertEqual(violations(assembly), [])

    def test_what_may_be_fused_or_is_inexact_is_found(self):
        assembly = disassemble(SHADERS[0])
        self.assertTrue(violations(assembly.replace("NoContraction", "RelaxedPrecision")))
        self.assertTrue(violations(assembly.replace("= OpFMul", "= OpFDiv", 1)))
        self.assertTrue(violations(assembly + "\n%900 = OpExtInst %5 %1 InverseSqrt %3\n"))


if __name__ == "__main__":
    SHADERS = sorted(glob.glob(os.path.join(sys.argv[1], "*.spv")))
    unittest.main(argv=sys.argv[:1])
