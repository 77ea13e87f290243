"""Arrays of every type, layout and stride arrive as they are meant and come back in kind."""

import unittest

import normserve
import numpy as np
import torch
from normserve import BFloat16, tensor_message
from server_process import ServerTestCase, pb, tensor_pb2


class bfloat16(np.void):  # pylint: disable=invalid-name
    """Stands in for ml_dtypes.bfloat16, which Debian 12 lacks: numpy sees a type of this name and two bytes."""


ML_BFLOAT16 = np.dtype((bfloat16, [("word", "<u2")]))


def reference(x, axis=1):
    """The same batch normalised in float64."""
    axes = tuple(a for a in range(x.ndim) if a != axis % x.ndim)
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


class Tensors(ServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = cls.enterClassContext(normserve.Client(cls.server.address))
        cls.bn = cls.client.create("tensors", 3)
        cls.x = np.random.default_rng(1).standard_normal((4, 3, 6, 5)).astype(np.float32)

    def forward(self, x, **options):
        return self.bn.forward(x, normalize_with="batch", update="none", **options).output

    def test_types_come_back_as_they_came(self):
        x = self.x
        rounded = BFloat16.of(x)
        for sent, values, dtype, close in (
            (x, x, np.dtype(np.float32), 1e-5),
            (x.astype(">f4"), x, np.dtype(np.float32), 1e-5),
            (x.astype(np.float16), x, np.dtype(np.float16), 2e-3),
            (rounded.words.view(ML_BFLOAT16), rounded.float32(), ML_BFLOAT16, 1e-2),
        ):
            with self.subTest(dtype=dtype):
                y = self.forward(sent)
                self.assertEqual((type(y), y.dtype, y.shape), (np.ndarray, dtype, x.shape))
                floats = BFloat16(y.view(np.uint16)).float32() if dtype == ML_BFLOAT16 else y
                np.testing.assert_allclose(floats, reference(values), close, close)
        y = self.forward(rounded)
        self.assertIsInstance(y, BFloat16)
        np.testing.assert_array_equal(y.words, self.forward(rounded.words.view(ML_BFLOAT16)).view(np.uint16))

    def test_torch_tensors_of_every_type_make_the_trip(self):
        for dtype, close in ((torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)):
            sent = torch.from_numpy(self.x).to(dtype).requires_grad_()
            y = normserve.torch.from_numpy(self.forward(normserve.torch.to_numpy(sent)))
            self.assertEqual((y.dtype, y.shape), (dtype, sent.shape))
            np.testing.assert_allclose(y.float(), reference(sent.detach().float().numpy()), close, close)

    def test_other_types_are_refused_with_what_to_do(self):
        for x in (self.x.astype(np.float64), self.x.astype(int), self.x.tolist(), self.x.astype(complex)):
            with self.assertRaisesRegex(TypeError, r"^x is \w+: .*send x\.astype\(numpy\.float32\)$"):
                self.bn.forward(x)
        for x in (torch.ones(2, 3).bfloat16(), torch.ones(2, 3).requires_grad_(), [[1, 2], [3]]):
            with self.assertRaisesRegex(TypeError, r"^x is a (Tensor|list) .*normserve\.torch\.to_numpy\(x\)$"):
                self.bn.forward(x)
        result = self.bn.forward(self.x, save_for_backward=True)
        with self.assertRaisesRegex(TypeError, "^grad_output is float64"):
            self.bn.backward(self.x.astype(np.float64), result)

    def test_layouts_have_the_same_bits(self):
        last = np.ascontiguousarray(np.moveaxis(self.x, 1, -1))
        y = self.forward(last, layout="channels_last")
        np.testing.assert_allclose(y, reference(last, -1), 1e-5, 1e-5)
        np.testing.assert_array_equal(np.moveaxis(y, -1, 1), self.forward(self.x))
        crossed = np.ascontiguousarray(np.moveaxis(last, 1, -1)).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(self.forward(crossed, layout="channels_last"), y)
        with self.assertRaisesRegex(ValueError, "NHWC.*channels_last"):
            self.forward(last, layout="NHWC")

    def test_strides_do_not_matter(self):
        wide = np.random.default_rng(2).standard_normal((8, 6, 6, 10)).astype(np.float32)
        cases = {
            "slice": wide[::2, 1::2, :, ::2],
            "reversed": self.x[::-1, :, ::-1],
            "transposed": self.x.transpose(0, 1, 3, 2),
            "fortran": np.asfortranarray(self.x),
            "memory channels last": np.ascontiguousarray(np.moveaxis(self.x, 1, -1)).transpose(0, 3, 1, 2),
            "broadcast": np.broadcast_to(self.x[:, :, :1], self.x.shape),
            "read-only": np.frombuffer(self.x.tobytes(), np.float32).reshape(self.x.shape),
            "a column": wide[:, :3, 0, 0],
            "five dimensions": self.x[..., np.newaxis],
            "bfloat16": BFloat16(BFloat16.of(wide).words[:, ::2]),
        }
        for what, x in cases.items():
            with self.subTest(what):
                if isinstance(x, BFloat16):
                    dense = self.forward(BFloat16(np.ascontiguousarray(x.words)))
                    np.testing.assert_array_equal(self.forward(x).words, dense.words)
                    continue
                y = self.forward(x)
                np.testing.assert_allclose(y, reference(x), 1e-5, 1e-5)
                np.testing.assert_array_equal(y, self.forward(np.ascontiguousarray(x)))

    def test_an_empty_batch_has_an_empty_output(self):
        for layout, shape in (("channels_first", (0, 3, 4)), ("channels_last", (0, 4, 3))):
            result = self.bn.forward(np.zeros(shape, np.float32), layout=layout, return_batch_moments=True)
            self.assertEqual((result.output.shape, result.update, result.batch_moments.count), (shape, "none", 0))

    def test_the_output_is_the_callers_own(self):
        y = self.forward(self.x)
        self.assertTrue(y.flags.writeable and y.flags.aligned and y.flags.c_contiguous)
        y += 1

    def test_a_batch_larger_than_grpcs_default_limit_travels(self):
        x = np.ones((2, 3, 1 << 20), np.float32)
        self.assertEqual(self.forward(x).nbytes, 24 << 20)


class Messages(unittest.TestCase):
    """What tensor_message.py makes is what protobuf would make."""

    def test_the_message_is_the_one_that_protobuf_makes(self):
        for shape in ((2, 3), (0, 3), (5, 3, 70)):
            x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
            form = tensor_message.form_of(x, "channels_first", "x")
            head = pb.ForwardRequest(name="a", mode="MODE_EVAL").SerializeToString()
            tensor = tensor_message.tensor_parts(x, form, "x")
            whole = pb.ForwardRequest.FromString(b"".join([head, *tensor_message.field(tensor_message.INPUT, tensor)]))
            payload = {"data": x.tobytes()} if x.size else {}
            self.assertEqual(whole, pb.ForwardRequest(name="a", mode="MODE_EVAL", input=tensor_pb2.Tensor(
                data_type="DATA_TYPE_FLOAT32", shape=shape, layout="LAYOUT_CHANNELS_FIRST", **payload)))  # fmt: skip

    def test_a_dense_array_and_one_that_torch_keeps_channels_last_are_not_copied(self):
        dense = np.zeros((2, 3, 4, 5), np.float32)
        moved = np.zeros((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2)
        for x, shape in ((dense, [2, 3, 4, 5]), (moved, [2, 4, 5, 3])):
            form = tensor_message.form_of(x, "channels_first", "x")
            header, *payload = tensor_message.tensor_parts(x, form, "x")
            self.assertEqual(list(tensor_pb2.Tensor.FromString(header).shape), shape)
            self.assertTrue(np.shares_memory(np.frombuffer(payload[-1], np.uint8), x))

    def test_a_field_is_cut_out_wherever_it_stands(self):
        message = pb.ForwardReply(generation=1 << 40, uid="u", saved_forward=b"s" * 300, output={"shape": [1, 2], "data": b"x"})
        whole = message.SerializeToString()
        rest, found = tensor_message.split(whole, tensor_message.OUTPUT)
        self.assertEqual(tensor_pb2.Tensor.FromString(found), message.output)
        again, _ = tensor_message.split(b"".join([*tensor_message.field(tensor_message.OUTPUT, [found]), rest]), 31)
        self.assertEqual(again, rest)
        message.ClearField("output")
        self.assertEqual(pb.ForwardReply.FromString(rest), message)
        # Fields of fixed width, which a later version may have.
        rest, found = tensor_message.split(b"\x09" + b"8" * 8 + b"\x15" + b"4" * 4 + b"\xfa\x01\x00", 31)
        self.assertEqual((len(rest), bytes(found)), (14, b""))

    def test_a_reply_that_is_cut_short_is_no_reply(self):
        whole = pb.ForwardReply(uid="u" * 200).SerializeToString()
        for size in (1, 2, 100):
            with self.assertRaisesRegex(ValueError, "ends within"):
                tensor_message.split(whole[:size], 31)
        with self.assertRaisesRegex(ValueError, "wire type 7"):
            tensor_message.split(b"\x07", 31)


if __name__ == "__main__":
    unittest.main()
