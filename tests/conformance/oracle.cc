#include "tests/conformance/oracle.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "kernels/host_tensor.h"

namespace normserve::conformance {
namespace {

constexpr size_t kMostReported = 3;

// Calls visit(position in the tensor) for every value of `channel`.
template <typename Visitor>
void ForEachValue(const BatchShape& shape, int64_t channel, Visitor visit) {
  for (int64_t n = 0; n < shape.batch_size; ++n) {
    const int64_t begin = (n * shape.num_features + channel) * shape.spatial_size;
    for (int64_t s = 0; s < shape.spatial_size; ++s) visit(static_cast<size_t>(begin + s));
  }
}

struct Bounds {
  long double output_relative;  // to |normalised * weight| + |bias|
  long double output_absolute;
  long double variance_relative;
  long double mean_of_std;  // of the mean, in standard deviations
};

Bounds BoundsOf(Tolerance tolerance) {
  if (tolerance == Tolerance::kPyTorch) return {1e-5L, 1e-6L, 1e-5L, 1e-5L};
  return {1e-6L, 1e-6L, 5e-7L, 1e-6L};
}

void CheckMoments(const Case& test_case, const CaseData& data, const Expected& expected, const Moments& moments,
                  std::vector<std::string>& found) {
  const size_t num_features = static_cast<size_t>(data.shape.num_features);
  if (moments.count != data.shape.ValuesPerChannel() || moments.mean.size() != num_features ||
      moments.m2.size() != num_features) {
    found.push_back(absl::StrFormat("moments: count %d, %d means, %d m2; expected count %d and %d channels",
                                    moments.count, moments.mean.size(), moments.m2.size(),
                                    data.shape.ValuesPerChannel(), num_features));
    return;
  }
  const Bounds bounds = BoundsOf(test_case.tolerance);
  size_t reported = 0;
  for (size_t c = 0; c < num_features && reported < kMostReported; ++c) {
    const long double variance = moments.m2[c] / static_cast<long double>(moments.count);
    // A variance far below the rounding of the values themselves carries no digits: 2^-48 of the squared mean.
    const long double noise = expected.mean[c] * expected.mean[c] * 0x1p-48L;
    const long double variance_bound = bounds.variance_relative * expected.variance[c] + noise;
    if (!(std::abs(variance - expected.variance[c]) <= variance_bound)) {
      ++reported;
      found.push_back(absl::StrFormat("channel %d: variance %.9g, expected %.9g, off by %.3g of itself", c, variance,
                                      expected.variance[c],
                                      std::abs(variance - expected.variance[c]) / expected.variance[c]));
    }
    const long double mean_bound =
        bounds.mean_of_std * std::sqrt(expected.variance[c]) + std::abs(expected.mean[c]) * 0x1p-40L;
    if (!(std::abs(moments.mean[c] - expected.mean[c]) <= mean_bound)) {
      ++reported;
      found.push_back(absl::StrFormat("channel %d: mean %.12g, expected %.12g, bound %.3g", c, moments.mean[c],
                                      expected.mean[c], mean_bound));
    }
    if (moments.m2[c] < 0) found.push_back(absl::StrFormat("channel %d: m2 is negative: %g", c, moments.m2[c]));
  }
}

float InType(float value, ElementType type) {
  return type == ElementType::kFloat32 ? value : FloatFromBits(type, BitsFromFloat(type, value));
}

// Beyond this a value rounds to infinity.
long double LargestOf(ElementType type) { return type == ElementType::kFloat16 ? 65520.0L : 0x1.ff8p127L; }

// What rounding to `type` may take from `value`: nothing counted for float32, whose bounds have it already.
long double RoundingOf(ElementType type, long double value) {
  if (type == ElementType::kFloat32) return 0;
  if (type == ElementType::kFloat16) return std::max(std::abs(value) * 0x1.004p-11L, 0x1p-25L);
  return std::abs(value) * 0x1.01p-8L;
}

}  // namespace

Expected ComputeExpected(const Case& test_case, const CaseData& data) {
  Expected expected;
  expected.y.resize(data.x.size());
  const long double count = static_cast<long double>(data.shape.ValuesPerChannel());
  for (int64_t c = 0; c < data.shape.num_features; ++c) {
    long double sum = 0;
    ForEachValue(data.shape, c, [&](size_t i) { sum += data.x[i]; });
    const long double rough_mean = sum / count;
    long double squares = 0, rest = 0;
    ForEachValue(data.shape, c, [&](size_t i) {
      const long double difference = data.x[i] - rough_mean;
      squares += difference * difference;
      rest += difference;
    });
    expected.mean.push_back(rough_mean + rest / count);
    expected.variance.push_back((squares - rest * rest / count) / count);

    const size_t k = static_cast<size_t>(c);
    const long double mean = data.given ? data.given->mean[k] : expected.mean[k];
    const long double variance = data.given ? data.given->variance[k] : expected.variance[k];
    const long double root = std::sqrt(variance + static_cast<long double>(test_case.epsilon));
    ForEachValue(data.shape, c, [&](size_t i) {
      expected.y[i] = (data.x[i] - mean) / root * data.parameters->weight[k] + data.parameters->bias[k];
    });
  }
  return expected;
}

ExpectedGradients ComputeGradients(const Case& test_case, const CaseData& data, const std::vector<float>& g) {
  const Expected expected = ComputeExpected(test_case, data);
  ExpectedGradients gradients;
  gradients.input.resize(g.size());
  const long double count = static_cast<long double>(data.shape.ValuesPerChannel());
  for (int64_t c = 0; c < data.shape.num_features; ++c) {
    const size_t k = static_cast<size_t>(c);
    const long double mean = data.given ? data.given->mean[k] : expected.mean[k];
    const long double variance = data.given ? data.given->variance[k] : expected.variance[k];
    const long double shifted = variance + static_cast<long double>(test_case.epsilon);
    // A constant channel without epsilon is divided by 1.
    const long double root = !data.given && shifted == 0 ? 1 : std::sqrt(shifted);
    long double sum = 0, product = 0;
    ForEachValue(data.shape, c, [&](size_t i) { sum += g[i]; });
    ForEachValue(data.shape, c,
                 [&](size_t i) { product += (data.given ? g[i] : g[i] - sum / count) * (data.x[i] - mean) / root; });
    gradients.bias.push_back(sum);
    gradients.weight.push_back(product);
    const long double weight = data.parameters->weight[k];
    ForEachValue(data.shape, c, [&](size_t i) {
      const long double through = data.given ? 0 : (sum + product * (data.x[i] - mean) / root) / count;
      gradients.input[i] = (g[i] - through) * weight / root;
    });
  }
  return gradients;
}

long double RelativeError(const std::vector<double>& actual, const std::vector<long double>& expected) {
  long double error = 0, size = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  return error == 0 ? 0 : std::sqrt(error / size);
}

std::vector<float> JoinOutput(const OutputTensor& output, ElementType type) {
  return ReadTensor({.type = type, .pieces = output.pieces, .owner = output.owner});
}

std::vector<std::string> Discrepancies(const Case& test_case, const CaseData& data, const Expected& expected,
                                       const ForwardResult& result) {
  std::vector<std::string> found;
  size_t output_bytes = 0;
  for (absl::Span<const std::byte> piece : result.output.pieces) output_bytes += piece.size();
  const auto expected_bytes = static_cast<size_t>(data.shape.SizeBytes(data.type));
  if (output_bytes != expected_bytes) {
    return {absl::StrFormat("output has %d bytes, expected %d", output_bytes, expected_bytes)};
  }

  const std::vector<float> y = JoinOutput(result.output, data.type);
  const Bounds bounds = BoundsOf(test_case.tolerance);
  size_t reported = 0;
  for (size_t i = 0; i < y.size() && reported < kMostReported; ++i) {
    const size_t c = i / static_cast<size_t>(data.shape.spatial_size) % static_cast<size_t>(data.shape.num_features);
    const float bias = data.parameters->bias[c];
    bool right;
    long double bound = 0;
    if (test_case.tolerance == Tolerance::kExactlyBias) {
      right = y[i] == InType(bias, data.type);
    } else if (std::abs(expected.y[i]) >= LargestOf(data.type)) {
      right = std::isinf(y[i]) && (y[i] > 0) == (expected.y[i] > 0);
    } else {
      bound = bounds.output_absolute +
              bounds.output_relative * (std::abs(expected.y[i] - bias) + std::abs(static_cast<long double>(bias))) +
              RoundingOf(data.type, expected.y[i]);
      right = std::abs(y[i] - expected.y[i]) <= bound;
    }
    if (!right) {
      ++reported;
      found.push_back(absl::StrFormat("output[%d] (channel %d): %.9g, expected %.9g, bound %.3g, input %.9g", i, c,
                                      y[i], expected.y[i], bound, data.x[i]));
    }
  }

  if (!test_case.given || test_case.want_moments) {
    if (!result.moments) {
      found.push_back("no moments came");
    } else {
      CheckMoments(test_case, data, expected, *result.moments, found);
    }
  } else if (result.moments) {
    found.push_back("moments came that nobody wanted");
  }
  return found;
}

absl::StatusOr<BackwardResult> RunBackward(Engine& engine, BackwardJob job) {
  absl::Notification done;
  absl::StatusOr<BackwardResult> result = absl::UnknownError("done was not called");
  engine.Backward(std::move(job), [&](absl::StatusOr<BackwardResult> answer) {
    result = std::move(answer);
    done.Notify();
  });
  done.WaitForNotification();
  return result;
}

absl::StatusOr<ForwardResult> RunForward(Engine& engine, ForwardJob job) {
  absl::Notification done;
  absl::StatusOr<ForwardResult> result = absl::UnknownError("done was not called");
  engine.Forward(std::move(job), [&](absl::StatusOr<ForwardResult> answer) {
    result = std::move(answer);
    done.Notify();
  });
  done.WaitForNotification();
  return result;
}

std::vector<std::string> CheckCase(Engine& engine, const Case& test_case, Cut cut) {
  const CaseData data = MakeData(test_case);
  const absl::StatusOr<ForwardResult> result = RunForward(engine, MakeJob(test_case, data, cut));
  if (!result.ok()) return {result.status().ToString()};
  return Discrepancies(test_case, data, ComputeExpected(test_case, data), *result);
}

}  // namespace normserve::conformance
