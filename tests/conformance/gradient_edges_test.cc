// Gradients where floating point ends: infinities and NaN, and numbers of extreme size.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/bit_model.h"
#include "tests/conformance/engines.h"
#include "tests/conformance/hash.h"
#include "tests/conformance/oracle.h"

namespace normserve::conformance {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr long double kGradientError = 4e-7L;
constexpr ElementType kTypes[] = {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16};

// A batch, a gradient of its output and what it was normalised with, exact to double: no engine's Forward.
struct Trial {
  Case test_case;
  CaseData data;
  std::vector<float> g;
  std::shared_ptr<const NormalizationStatistics> used;

  BackwardJob Job() const {
    return {.grad_output = MakeInput(data.shape, data.type, g),
            .input = MakeInput(data.shape, data.type, data.x),
            .parameters = data.parameters,
            .epsilon = test_case.epsilon,
            .normalization = used,
            .from_batch = data.given == nullptr};
  }
};

Trial MakeTrial(const Case& test_case, ElementType type, double gradient_scale = 1) {
  Trial trial{.test_case = test_case, .data = InType(MakeData(test_case), type)};
  CaseData gradient = trial.data;
  gradient.x = DrawGradient(trial.data, 7);
  for (float& g : gradient.x) g = static_cast<float>(g * gradient_scale);
  trial.g = InType(std::move(gradient), type).x;
  trial.used = trial.data.given;
  if (trial.used == nullptr) {
    const Expected exact = ComputeExpected(test_case, trial.data);
    auto used = std::make_shared<NormalizationStatistics>();
    for (size_t c = 0; c < exact.mean.size(); ++c) {
      used->mean.push_back(static_cast<double>(exact.mean[c]));
      used->variance.push_back(static_cast<double>(exact.variance[c]));
    }
    trial.used = std::move(used);
  }
  return trial;
}

class GradientEdgesTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    absl::StatusOr<Engine*> engine = SharedEngine(GetParam());
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *engine;
  }

  BackwardResult Run(BackwardJob job) {
    absl::StatusOr<BackwardResult> result = RunBackward(*engine_, std::move(job));
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *std::move(result) : BackwardResult{};
  }

  // Any NaN equals any NaN.
  void ExpectTheModelsBits(const Trial& trial, const BackwardResult& result) {
    if (GetParam() == "reference") return;
    BitModelEngine model;
    const absl::StatusOr<BackwardResult> expected = RunBackward(model, trial.Job());
    EXPECT_EQ(HashOf(JoinOutput(result.grad_input, trial.data.type)),
              HashOf(JoinOutput(expected->grad_input, trial.data.type)));
    EXPECT_EQ(HashOf(result.sums.grad_output), HashOf(expected->sums.grad_output));
    EXPECT_EQ(HashOf(result.sums.product), HashOf(expected->sums.product));
    EXPECT_EQ(HashOf(result.sums.centred_input), HashOf(expected->sums.centred_input));
    EXPECT_EQ(HashOf(result.sums.centred_input_squared), HashOf(expected->sums.centred_input_squared));
  }

  Engine* engine_ = nullptr;
};

// What PyTorch computes, in double: the leading terms alone.
struct Plain {
  std::vector<double> input, weight, bias;
};

Plain PlainGradients(const Trial& trial) {
  const BatchShape& shape = trial.data.shape;
  Plain plain;
  plain.input.resize(trial.g.size());
  const auto count = static_cast<double>(shape.ValuesPerChannel());
  for (int64_t c = 0; c < shape.num_features; ++c) {
    const double mean = trial.used->mean[c];
    const double r = 1 / std::sqrt(trial.used->variance[c] + trial.test_case.epsilon);
    const auto visit = [&](auto each) {
      for (int64_t n = 0; n < shape.batch_size; ++n) {
        for (int64_t s = 0; s < shape.spatial_size; ++s) {
          each(static_cast<size_t>((n * shape.num_features + c) * shape.spatial_size + s));
        }
      }
    };
    double sum = 0, product = 0;
    visit([&](size_t i) {
      sum += trial.g[i];
      product += trial.g[i] * (trial.data.x[i] - mean);
    });
    plain.bias.push_back(sum);
    plain.weight.push_back(product * r);
    const double weight = trial.data.parameters->weight[c];
    visit([&](size_t i) {
      const double g = trial.g[i];
      plain.input[i] = trial.data.given
                           ? g * (weight * r)
                           : (g - sum / count - (trial.data.x[i] - mean) * (product * r * r / count)) * (weight * r);
    });
  }
  return plain;
}

// The same infinity or NaN, or as near as the type lets it be.
testing::AssertionResult Agrees(double found, double expected, double relative) {
  const bool right = std::isnan(expected)   ? std::isnan(found)
                     : std::isinf(expected) ? found == expected
                                            : std::abs(found - expected) <= relative * (1 + std::abs(expected));
  if (right) return testing::AssertionSuccess();
  return testing::AssertionFailure() << found << ", expected " << expected;
}

// Of weight and bias, as a caller makes them of the sums.
Plain FromSums(const Trial& trial, const GradientSums& sums) {
  Plain made;
  for (size_t c = 0; c < sums.product.size(); ++c) {
    double product = sums.product[c];
    if (!trial.data.given && std::isfinite(sums.grad_output[c])) {
      product -= sums.centred_input[c] / static_cast<double>(sums.count) * sums.grad_output[c];
    }
    made.weight.push_back(product / std::sqrt(trial.used->variance[c] + trial.test_case.epsilon));
    made.bias.push_back(sums.grad_output[c]);
  }
  return made;
}

// [3, 3, 15]: a ragged chunk and a whole one a channel.
Case SmallCase(bool given) {
  Case test_case{.name = "small", .shape = {3, 3, 15}, .affine = Affine::kDrawn, .reason = ""};
  if (given) test_case.given = GivenRecipe{0.5, 0.1, 0};
  return test_case;
}

TEST_P(GradientEdgesTest, InfinitiesAndNaNPassThroughAsIeeeSays) {
  for (const bool given : {true, false}) {
    for (ElementType type : kTypes) {
      const double relative = type == ElementType::kFloat32 ? 1e-5 : type == ElementType::kFloat16 ? 2e-3 : 2e-2;
      for (const bool in_input : {true, false}) {
        if (in_input && !given) continue;  // the mean is not finite, nor is anything else
        for (float value : {kInfinity, -kInfinity, std::nanf("")}) {
          for (const size_t at : {size_t{15 + 2}, size_t{15 + 14}, size_t{105 + 1}}) {  // of channel 1
            SCOPED_TRACE(absl::StrCat(given ? "given, " : "batch, ", in_input ? "x[" : "g[", at, "] = ", value,
                                      ", type ", static_cast<int>(type)));
            Trial trial = MakeTrial(SmallCase(given), type);
            (in_input ? trial.data.x : trial.g)[at] = value;
            const BackwardResult result = Run(trial.Job());
            if (HasFailure()) return;
            const Plain expected = PlainGradients(trial), made = FromSums(trial, result.sums);
            const std::vector<float> input = JoinOutput(result.grad_input, type);
            for (size_t i = 0; i < input.size(); ++i) EXPECT_TRUE(Agrees(input[i], expected.input[i], relative)) << i;
            for (size_t c = 0; c < 3; ++c) {
              EXPECT_TRUE(Agrees(made.weight[c], expected.weight[c], 1e-5)) << "weight of channel " << c;
              EXPECT_TRUE(Agrees(made.bias[c], expected.bias[c], 1e-5)) << "bias of channel " << c;
            }
            ExpectTheModelsBits(trial, result);
          }
        }
      }
    }
  }
}

struct Scale {
  const char* name;
  DataRecipe data;
  double gradient;
  double epsilon = 1e-5;
  std::optional<GivenRecipe> given;
};

constexpr auto kNormal = DataRecipe::Kind::kNormal;
const Scale kScales[] = {
    {"gradients near the end of float32", {kNormal, 0, 1}, 1e35},
    {"the same in evaluation", {kNormal, 0, 1}, 1e35, 1e-5, GivenRecipe{0.05, 0.9, 0.1}},
    {"values near it in evaluation", {kNormal, 0, 1e37}, 1e-3, 1e-5, GivenRecipe{0.05, 0.9, 0.1}},
    {"values whose variance has a reciprocal beyond float32", {kNormal, 0, 1e-18}, 1, 0},
    {"and near the end of float32 itself", {kNormal, 0, 1e-20}, 1e-8, 0},
    {"values whose variance is beyond float32", {kNormal, 0, 1e36}, 1e3, 1e-5},
    {"a constant channel with the smallest normal epsilon", {DataRecipe::Kind::kConstant, 3}, 1, 1e-37},
    {"a constant channel with a smaller one", {DataRecipe::Kind::kConstant, 3}, 1, 1e-40},
};

TEST_P(GradientEdgesTest, ExtremeScalesAreExactToo) {
  for (const Scale& scale : kScales) {
    SCOPED_TRACE(scale.name);
    const Case test_case{.name = scale.name,
                         .shape = {4, 3, 21},
                         .epsilon = scale.epsilon,
                         .data = scale.data,
                         .affine = Affine::kDrawn,
                         .given = scale.given,
                         .reason = ""};
    const Trial trial = MakeTrial(test_case, ElementType::kFloat32, scale.gradient);
    const BackwardResult result = Run(trial.Job());
    if (HasFailure()) return;
    const ExpectedGradients expected = ComputeGradients(test_case, trial.data, trial.g);
    const std::vector<float> input = JoinOutput(result.grad_input);
    EXPECT_LE(RelativeError({input.begin(), input.end()}, expected.input), kGradientError);
    const Plain made = FromSums(trial, result.sums);
    EXPECT_LE(RelativeError(made.weight, expected.weight), kGradientError);
    EXPECT_LE(RelativeError(made.bias, expected.bias), kGradientError);
    ExpectTheModelsBits(trial, result);
  }
}

// A batch whose values have mean 3 * std and deviation std, and whose gradient has size g, forward and backward.
struct BothWays {
  std::vector<std::string> wrong;  // what is not exact, and what has other bits than the model's
};

BothWays RunAt(Engine& engine, bool compare_bits, bool given, double std, double g, double epsilon) {
  Case test_case{.name = "",
                 .shape = {4, 3, 2, 21},
                 .epsilon = epsilon,
                 .data = {kNormal, 3 * std, std},
                 .affine = Affine::kDrawn,
                 .reason = ""};
  if (given) test_case.given = GivenRecipe{2.9 * std, 1.1 * std * std, 0};
  Trial trial = MakeTrial(test_case, ElementType::kFloat32, g);
  const Expected exact = ComputeExpected(test_case, trial.data);
  const absl::StatusOr<ForwardResult> forward = RunForward(engine, MakeJob(test_case, trial.data));
  BothWays both{.wrong = Discrepancies(test_case, trial.data, exact, *forward)};
  if (!given) {
    auto used = std::make_shared<NormalizationStatistics>();
    used->mean = forward->moments->mean;
    for (size_t c = 0; c < used->mean.size(); ++c) used->variance.push_back(forward->moments->BiasedVariance(c));
    trial.used = used;
  }
  const absl::StatusOr<BackwardResult> backward = RunBackward(engine, trial.Job());
  const ExpectedGradients expected = ComputeGradients(test_case, trial.data, trial.g);
  const std::vector<float> input = JoinOutput(backward->grad_input);
  const long double error = RelativeError({input.begin(), input.end()}, expected.input);
  if (!(error <= kGradientError)) both.wrong.push_back(absl::StrCat("gradient off by ", static_cast<double>(error)));
  const Plain made = FromSums(trial, backward->sums);
  if (!(RelativeError(made.weight, expected.weight) <= kGradientError)) both.wrong.push_back("gradient of the weight");
  if (!(RelativeError(made.bias, expected.bias) <= kGradientError)) both.wrong.push_back("gradient of the bias");
  if (!compare_bits) return both;
  BitModelEngine model;
  if (HashOf(*forward) != HashOf(*RunForward(model, MakeJob(test_case, trial.data)))) both.wrong.push_back("bits");
  if (HashOf(*backward) != HashOf(*RunBackward(model, trial.Job()))) both.wrong.push_back("bits of the gradient");
  return both;
}

// The range that README and kernels/bit_model.h promise. SwiftShader, which makes subnormals 0, leaves it first: with
// deviations of 1e-17 or gradients of 1e-26; all with deviations of 1e19, whose squares are beyond float32.
TEST_P(GradientEdgesTest, BetweenOneE15AndItsInverseAllIsExactAndHasTheModelsBits) {
  for (const bool given : {false, true}) {
    for (double epsilon : {0.0, 1e-5}) {
      for (double std : {1e-15, 1.0, 1e15}) {
        for (double g : {1e-15, 1.0, 1e15}) {
          const BothWays both = RunAt(*engine_, GetParam() != "reference", given, std, g, epsilon);
          EXPECT_THAT(both.wrong, testing::IsEmpty())
              << (given ? "given" : "batch") << ", epsilon " << epsilon << ", deviation " << std << ", gradient " << g;
        }
      }
    }
  }
}

std::vector<std::string> EngineNames() {
  std::vector<std::string> names;
  for (const EngineUnderTest& engine : EnginesUnderTest()) names.push_back(engine.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(, GradientEdgesTest, testing::ValuesIn(EngineNames()),
                         [](const auto& info) { return info.param; });

// A job or a buffer that an engine still holds when it ends fails here.
class EnginesEndLast : public testing::Environment {
 public:
  void TearDown() override { DestroySharedEngines(); }
};
[[maybe_unused]] const auto* const engines_end_last = testing::AddGlobalTestEnvironment(new EnginesEndLast);

}  // namespace
}  // namespace normserve::conformance
