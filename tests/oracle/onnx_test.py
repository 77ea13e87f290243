"""ONNX's published batch-norm cases (Debian's libonnx-testdata) through the service."""

import os
import pathlib
import unittest

import numpy as np

import onnx_file
from server_process import ENGINE, ServerTestCase, array, pb, session_pb2, statistics_of, statistics_pb2, tensor

DATA = pathlib.Path(os.environ.get("NORMSERVE_ONNX_DATA", "/usr/share/libonnx-testdata/data"))

COVERED = [
    "node/test_batchnorm_epsilon",
    "node/test_batchnorm_example",
    "pytorch-converted/test_BatchNorm1d_3d_input_eval",
    "pytorch-converted/test_BatchNorm2d_eval",
    "pytorch-converted/test_BatchNorm2d_momentum_eval",
    "pytorch-converted/test_BatchNorm3d_eval",
    "pytorch-converted/test_BatchNorm3d_momentum_eval",
]
TRAINING = [
    "node/test_batchnorm_epsilon_training_mode",
    "node/test_batchnorm_example_training_mode",
]


def read_case(folder):
    """(x, scale, bias, mean, variance, epsilon, expected outputs)"""
    graph = onnx_file.read_model((folder / "model.onnx").read_bytes())
    values = dict(graph.initializers)
    fed = [name for name in graph.inputs if name not in values]
    for i, name in enumerate(fed):
        values[name] = onnx_file.read_tensor((folder / "test_data_set_0" / f"input_{i}.pb").read_bytes())[1]
    expected = [onnx_file.read_tensor((folder / "test_data_set_0" / f"output_{i}.pb").read_bytes())[1]
                for i in range(len(graph.outputs))]
    assert [node.op_type for node in graph.nodes] == ["BatchNormalization"], graph.nodes
    node = graph.nodes[0]
    assert node.outputs[:1] == graph.outputs[:1]
    return *(values[name] for name in node.inputs), node.attributes.get("epsilon", 1e-5), expected


class PublishedCases(ServerTestCase):
    def test_every_published_case_is_covered(self):
        patterns = ("node/test_batchnorm*", "pytorch-converted/test_BatchNorm*")
        published = [str(path.relative_to(DATA)) for pattern in patterns for path in DATA.glob(pattern)]
        self.assertEqual(sorted(published), sorted([*COVERED, *TRAINING]))

    def test_evaluation_gives_the_published_output(self):
        for case in COVERED:
            with self.subTest(case):
                x, scale, bias, mean, variance, epsilon, (expected,) = read_case(DATA / case)
                session = self.stub.CreateSession(pb.CreateSessionRequest(
                    config=session_pb2.SessionConfig(num_features=len(scale), epsilon=epsilon),
                    mode=session_pb2.MODE_EVAL,
                    parameters=statistics_pb2.Parameters(weight=scale, bias=bias),
                    statistics=statistics_pb2.RunningStatistics(running_mean=mean, running_var=variance)))
                self.assertEqual(session.mode, session_pb2.MODE_EVAL)
                reply = self.stub.Forward(pb.ForwardRequest(name=session.name, input=tensor(x)))
                y = array(reply.output)
                worst = np.max(np.abs(y - expected) / (1e-6 + 1e-5 * np.abs(expected)))
                print(f"{ENGINE} {case} {list(x.shape)}: {worst:.3f} of the bound")
                np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)

    def test_training_gives_the_published_output_and_running_statistics(self):
        for case in TRAINING:
            with self.subTest(case):
                x, scale, bias, mean, variance, epsilon, (y, new_mean, new_var) = read_case(DATA / case)
                session = self.stub.CreateSession(pb.CreateSessionRequest(
                    config=session_pb2.SessionConfig(num_features=len(scale), epsilon=epsilon,
                                                     convention=session_pb2.CONVENTION_ONNX),
                    parameters=statistics_pb2.Parameters(weight=scale, bias=bias),
                    statistics=statistics_pb2.RunningStatistics(running_mean=mean, running_var=variance)))
                reply = self.stub.Forward(pb.ForwardRequest(name=session.name, input=tensor(x)))
                np.testing.assert_allclose(array(reply.output), y, rtol=1e-5, atol=1e-6)
                found = statistics_of(self.stub, session.name)
                np.testing.assert_allclose(found.running_mean, new_mean, rtol=1e-5, atol=1e-6)
                np.testing.assert_allclose(found.running_var, new_var, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    unittest.main()
