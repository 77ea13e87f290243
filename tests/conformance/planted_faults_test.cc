// The cases catch the mistakes that batch norm is known for: each is planted in a small engine, and some case must
// fail.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_join.h"
#include "tests/conformance/oracle.h"

namespace normserve::conformance {
namespace {

enum class Fault {
  kNone,
  kNaiveVariance,       // E[x^2] - E[x]^2
  kUnbiasedVariance,    // normalises with m2 / (n - 1)
  kEpsilonOutsideRoot,  // 1 / (sqrt(var) + epsilon)
  kNoEpsilon,
  kEpsilonFixed,            // 1e-5 whatever the job says
  kMeanInFloat,             // rounds the mean to float32 before it is subtracted
  kForgetsTailOf4,          // leaves the last S mod 4 values of a row out of the moments
  kForgetsLastSample,       // n - 1 samples in the moments
  kSkipsChannelsOver65535,  // as a grid that is too small does
  kNoWeight,
  kNoBias,
  kBiasBeforeWeight,  // (normalised + bias) * weight
  kUsesBatchWhenGiven,
  kGivenMomentsAreGiven,  // reports the given statistics as the batch's moments
  kVarianceAsM2,          // forgets to multiply by the count
  kPlainSum,              // one float accumulator over the whole channel
  kSumTimesReciprocal,    // mean = sum * (1 / n) in float32
};

// Batch norm in the plainest way, in double where the fault does not say otherwise.
class FaultyEngine : public Engine {
 public:
  explicit FaultyEngine(Fault fault) : fault_(fault) {}

  void Forward(ForwardJob job, ForwardDone done) override {
    const BatchShape& shape = job.input.shape;
    std::vector<float> x;
    for (absl::Span<const std::byte> piece : job.input.pieces) {
      x.resize(x.size() + piece.size() / sizeof(float));
      std::memcpy(x.data() + x.size() - piece.size() / sizeof(float), piece.data(), piece.size());
    }
    Moments moments{.count = shape.ValuesPerChannel()};
    auto y = std::make_shared<std::vector<float>>(x.size());
    for (int64_t c = 0; c < shape.num_features; ++c) NormaliseChannel(job, c, x, moments, *y);
    ForwardResult result;
    if (!job.given || job.want_moments) result.moments = std::move(moments);
    result.output.pieces = {absl::MakeConstSpan(reinterpret_cast<const std::byte*>(y->data()), y->size() * 4)};
    result.output.owner = std::move(y);
    std::move(done)(std::move(result));
  }

  void Backward(BackwardJob, BackwardDone done) override { std::move(done)(absl::UnimplementedError("no gradients")); }

 private:
  template <typename Visitor>
  void ForEachCounted(const BatchShape& shape, int64_t c, Visitor visit) const {
    const int64_t samples = shape.batch_size - (fault_ == Fault::kForgetsLastSample && shape.batch_size > 1 ? 1 : 0);
    int64_t spatial = shape.spatial_size;
    if (fault_ == Fault::kForgetsTailOf4 && spatial > 4) spatial -= spatial % 4;
    for (int64_t n = 0; n < samples; ++n) {
      for (int64_t s = 0; s < spatial; ++s) visit((n * shape.num_features + c) * shape.spatial_size + s);
    }
  }

  void NormaliseChannel(const ForwardJob& job, int64_t c, const std::vector<float>& x, Moments& moments,
                        std::vector<float>& y) const {
    const BatchShape& shape = job.input.shape;
    const double count = static_cast<double>(moments.count);
    const double first = x[static_cast<size_t>(c * shape.spatial_size)];
    double mean = 0, m2 = 0, sum = 0;
    float float_sum = 0, float_squares = 0;
    ForEachCounted(shape, c, [&](int64_t i) {
      sum += x[i] - first;
      float_sum += x[i];
      float_squares += x[i] * x[i];
    });
    mean = first + sum / count;
    if (fault_ == Fault::kPlainSum) mean = float_sum / static_cast<float>(count);
    if (fault_ == Fault::kSumTimesReciprocal)
      mean = static_cast<float>(first * count + sum) * (1.0f / static_cast<float>(count));
    ForEachCounted(shape, c, [&](int64_t i) { m2 += (x[i] - mean) * (x[i] - mean); });
    if (fault_ == Fault::kNaiveVariance) {
      const float float_mean = float_sum / static_cast<float>(count);
      m2 = count * std::max(0.0f, float_squares / static_cast<float>(count) - float_mean * float_mean);
    }
    const bool given = job.given && fault_ != Fault::kUsesBatchWhenGiven;
    double variance = given ? job.given->variance[c] : m2 / count;
    if (!given && fault_ == Fault::kUnbiasedVariance && count > 1) variance = m2 / (count - 1);
    double used_mean = given ? job.given->mean[c] : mean;
    if (fault_ == Fault::kMeanInFloat) used_mean = static_cast<float>(used_mean);
    moments.mean.push_back(fault_ == Fault::kGivenMomentsAreGiven && given ? job.given->mean[c] : mean);
    moments.m2.push_back(fault_ == Fault::kVarianceAsM2 ? m2 / count : m2);

    double epsilon = job.epsilon;
    if (fault_ == Fault::kNoEpsilon) epsilon = 0;
    if (fault_ == Fault::kEpsilonFixed) epsilon = 1e-5;
    double root = fault_ == Fault::kEpsilonOutsideRoot ? std::sqrt(variance) + epsilon : std::sqrt(variance + epsilon);
    if (!given && root == 0) root = 1;
    const double weight = fault_ == Fault::kNoWeight ? 1 : job.parameters->weight[c];
    const double bias = fault_ == Fault::kNoBias ? 0 : job.parameters->bias[c];
    if (fault_ == Fault::kSkipsChannelsOver65535 && c >= 65535) return;
    for (int64_t n = 0; n < shape.batch_size; ++n) {
      for (int64_t s = 0; s < shape.spatial_size; ++s) {
        const size_t i = static_cast<size_t>((n * shape.num_features + c) * shape.spatial_size + s);
        const double normalised = (x[i] - used_mean) / root;
        y[i] = static_cast<float>(fault_ == Fault::kBiasBeforeWeight ? (normalised + bias) * weight
                                                                     : normalised * weight + bias);
      }
    }
  }

  const Fault fault_;
};

// The first cases that fail, three at most.
std::vector<std::string> FailingCases(Engine& engine) {
  absl::StatusOr<std::vector<Case>> cases = LoadCases(NORMSERVE_CONFORMANCE_CASES);
  if (!cases.ok()) return {cases.status().ToString()};
  std::vector<std::string> failing;
  for (const Case& test_case : *cases) {
    if (failing.size() < 3 && !CheckCase(engine, test_case).empty()) failing.push_back(test_case.name);
  }
  return failing;
}

TEST(PlantedFaultControlTest, NothingFailsWithoutAFault) {
  FaultyEngine engine(Fault::kNone);
  EXPECT_THAT(FailingCases(engine), testing::IsEmpty());
}

TEST(PlantedFaultControlTest, EveryCaseIsRead) {
  absl::StatusOr<std::vector<Case>> cases = LoadCases(NORMSERVE_CONFORMANCE_CASES);
  ASSERT_TRUE(cases.ok()) << cases.status();
  EXPECT_GT(cases->size(), 100u);
}

class PlantedFaultTest : public testing::TestWithParam<std::pair<const char*, Fault>> {};

TEST_P(PlantedFaultTest, IsCaughtBySomeCase) {
  FaultyEngine engine(GetParam().second);
  const std::vector<std::string> failing = FailingCases(engine);
  printf("caught by %s\n", absl::StrJoin(failing, ", ").c_str());
  EXPECT_THAT(failing, testing::Not(testing::IsEmpty()));
}

INSTANTIATE_TEST_SUITE_P(, PlantedFaultTest,
                         testing::ValuesIn(std::vector<std::pair<const char*, Fault>>{
                             {"NaiveVariance", Fault::kNaiveVariance},
                             {"UnbiasedVariance", Fault::kUnbiasedVariance},
                             {"EpsilonOutsideRoot", Fault::kEpsilonOutsideRoot},
                             {"NoEpsilon", Fault::kNoEpsilon},
                             {"EpsilonFixed", Fault::kEpsilonFixed},
                             {"MeanInFloat", Fault::kMeanInFloat},
                             {"ForgetsTailOf4", Fault::kForgetsTailOf4},
                             {"ForgetsLastSample", Fault::kForgetsLastSample},
                             {"SkipsChannelsOver65535", Fault::kSkipsChannelsOver65535},
                             {"NoWeight", Fault::kNoWeight},
                             {"NoBias", Fault::kNoBias},
                             {"BiasBeforeWeight", Fault::kBiasBeforeWeight},
                             {"UsesBatchWhenGiven", Fault::kUsesBatchWhenGiven},
                             {"GivenMomentsAreGiven", Fault::kGivenMomentsAreGiven},
                             {"VarianceAsM2", Fault::kVarianceAsM2},
                             {"PlainSum", Fault::kPlainSum},
                             {"SumTimesReciprocal", Fault::kSumTimesReciprocal},
                         }),
                         [](const auto& info) { return info.param.first; });

}  // namespace
}  // namespace normserve::conformance
