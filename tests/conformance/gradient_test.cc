// Every engine on every device computes the gradients of every case, in every element type, and all but the reference
// give the bits of the model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "kernels/bit_model.h"
#include "tests/conformance/engines.h"
#include "tests/conformance/hash.h"
#include "tests/conformance/oracle.h"

namespace normserve::conformance {
namespace {

constexpr long double kGradientError = 4e-7L;
// Rows larger than this would only take long.
constexpr int64_t kMostValues = 1 << 20;

// One batch of a case with a gradient of its output, and what Forward made of it on an engine.
struct Trial {
  Trial(const Case& test_case, CaseData case_data)
      : data(std::move(case_data)), g(DrawGradient(data, test_case.seed + 7)) {
    exact = ComputeExpected(test_case, data);
  }

  BackwardJob Job(const Case& test_case) const {
    auto used = std::make_shared<NormalizationStatistics>();
    for (size_t c = 0; c < static_cast<size_t>(data.shape.num_features); ++c) {
      used->mean.push_back(data.given ? data.given->mean[c] : moments.mean[c]);
      used->variance.push_back(data.given ? data.given->variance[c] : moments.BiasedVariance(c));
    }
    return {.grad_output = MakeInput(data.shape, data.type, g),
            .input = MakeInput(data.shape, data.type, data.x),
            .parameters = data.parameters,
            .epsilon = test_case.epsilon,
            .normalization = used,
            .from_batch = data.given == nullptr};
  }

  CaseData data;
  std::vector<float> g;
  Expected exact;
  Moments moments;
};

bool AreFinite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
}

std::vector<Case> AllCases() {
  auto loaded = LoadCases(NORMSERVE_CONFORMANCE_CASES);
  if (!loaded.ok()) {
    fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
    std::abort();
  }
  return *std::move(loaded);
}

// The gradients of weight and bias, as a caller makes them of the sums.
void WeightAndBias(const BackwardJob& job, const GradientSums& sums, std::vector<double>& weight,
                   std::vector<double>& bias) {
  for (size_t c = 0; c < sums.product.size(); ++c) {
    double shifted = job.normalization->variance[c] + job.epsilon, shift = 0;
    if (job.from_batch) {
      const double count = static_cast<double>(sums.count), mean = sums.centred_input[c] / count;
      shifted = (sums.centred_input_squared[c] - mean * sums.centred_input[c]) / count + job.epsilon;
      shift = mean * sums.grad_output[c];
      if (shifted == 0) shifted = 1;
    }
    weight.push_back((sums.product[c] - shift) / std::sqrt(shifted));
    bias.push_back(sums.grad_output[c]);
  }
}

// Whether float16 loses digits of most of the values, being too small.
bool HasSubnormalHalves(const std::vector<long double>& values) {
  size_t small = 0;
  for (long double value : values) small += std::abs(value) < 0x1p-14L;
  return small * 2 > values.size();
}

// Values that no bound on the error is asked of, by reason; printed at the end.
std::map<std::string, int>& LeftOut() {
  static auto* left_out = new std::map<std::string, int>;
  return *left_out;
}

bool LeaveOut(bool leaves, const std::string& reason) {
  if (leaves) ++LeftOut()[reason];
  return leaves;
}

class PrintLeftOut : public testing::Environment {
 public:
  void TearDown() override {
    for (const auto& [reason, count] : LeftOut())
      printf("without a bound on the error: %d, %s\n", count, reason.c_str());
  }
};
const testing::Environment* const kPrintLeftOut = testing::AddGlobalTestEnvironment(new PrintLeftOut);

// Whether float32 cannot hold the gradient, or not all of its digits.
bool LeavesRange(const Case& test_case) {
  return LeaveOut(test_case.epsilon > 1e30, "gradients that float32 cannot hold (epsilon > 1e30)");
}

class GradientTest : public testing::TestWithParam<std::tuple<std::string, Case>> {
 protected:
  void SetUp() override {
    absl::StatusOr<Engine*> engine = SharedEngine(std::get<0>(GetParam()));
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *engine;
  }

  const std::string& engine_name() const { return std::get<0>(GetParam()); }
  const Case& test_case() const { return std::get<1>(GetParam()); }

  // The same for every engine but the reference.
  void ExpectSameBits(const std::string& what, uint64_t bits) {
    if (engine_name() == "reference") return;
    static auto* first_bits = new std::map<std::string, std::pair<std::string, uint64_t>>;
    const auto& [first, expected] =
        first_bits->emplace(absl::StrCat(test_case().name, " ", what), std::pair(engine_name(), bits)).first->second;
    EXPECT_EQ(bits, expected) << what << ": other bits than on " << first;
  }

  // Forward with the input kept, then Backward from it; the bits of all, and what came.
  BackwardResult Run(Trial& trial, const std::string& what) {
    ForwardJob forward = MakeJob(test_case(), trial.data);
    forward.keep_input = true;
    absl::StatusOr<ForwardResult> output = RunForward(*engine_, std::move(forward));
    EXPECT_TRUE(output.ok()) << output.status();
    if (!output.ok()) return {};
    if (output->moments) trial.moments = *output->moments;
    BackwardJob job = trial.Job(test_case());
    job.kept_input = output->kept_input;
    job.input = {};
    absl::StatusOr<BackwardResult> result = RunBackward(*engine_, std::move(job));
    EXPECT_TRUE(result.ok()) << result.status();
    if (!result.ok()) return {};
    ExpectSameBits(what + " output", HashOf(*output));
    ExpectSameBits(what + " gradients", HashOf(*result));
    return *std::move(result);
  }

  Engine* engine_ = nullptr;
};

TEST_P(GradientTest, AreExactInFloat32) {
  Trial trial(test_case(), MakeData(test_case()));
  const BackwardResult result = Run(trial, "float32");
  if (HasFailure() || LeavesRange(test_case())) return;
  const ExpectedGradients expected = ComputeGradients(test_case(), trial.data, trial.g);
  const std::vector<float> input = JoinOutput(result.grad_input);
  EXPECT_LE(RelativeError({input.begin(), input.end()}, expected.input), kGradientError);
  std::vector<double> weight, bias;
  WeightAndBias(trial.Job(test_case()), result.sums, weight, bias);
  EXPECT_LE(RelativeError(weight, expected.weight), kGradientError);
  EXPECT_LE(RelativeError(bias, expected.bias), kGradientError);
}

TEST_P(GradientTest, AreTheSameFromTheInputSentAgainAndByWayOfTheSums) {
  Trial trial(test_case(), MakeData(test_case()));
  if (trial.data.shape.NumValues() > kMostValues) return;
  const BackwardResult kept = Run(trial, "float32");
  if (HasFailure()) return;
  const uint64_t expected = HashOf(kept);
  absl::StatusOr<BackwardResult> again = RunBackward(*engine_, trial.Job(test_case()));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(HashOf(*again), expected);

  BackwardJob sums_only = trial.Job(test_case());
  sums_only.want_grad_input = false;
  absl::StatusOr<BackwardResult> sums = RunBackward(*engine_, std::move(sums_only));
  ASSERT_TRUE(sums.ok()) << sums.status();
  EXPECT_TRUE(sums->grad_input.pieces.empty());
  BackwardJob rest = trial.Job(test_case());
  rest.sums = sums->sums;
  absl::StatusOr<BackwardResult> from_sums = RunBackward(*engine_, std::move(rest));
  ASSERT_TRUE(from_sums.ok()) << from_sums.status();
  EXPECT_EQ(HashOf(*from_sums), expected);
}

// 16-bit types: output and gradient of the input are the exact ones but for one rounding, of the values as they are.
TEST_P(GradientTest, AndOutputsAreRightInSixteenBits) {
  for (ElementType type : {ElementType::kFloat16, ElementType::kBFloat16}) {
    const std::string name = type == ElementType::kFloat16 ? "float16" : "bfloat16";
    SCOPED_TRACE(name);
    Trial trial(test_case(), InType(MakeData(test_case()), type));
    if (trial.data.shape.NumValues() > kMostValues || !AreFinite(trial.data.x)) continue;
    absl::StatusOr<ForwardResult> output = RunForward(*engine_, MakeJob(test_case(), trial.data, Cut::kOddPieces));
    ASSERT_TRUE(output.ok()) << output.status();
    EXPECT_THAT(Discrepancies(test_case(), trial.data, trial.exact, *output), testing::IsEmpty()) << test_case().reason;
    const BackwardResult result = Run(trial, name);
    if (HasFailure() || LeavesRange(test_case())) continue;
    const ExpectedGradients expected = ComputeGradients(test_case(), trial.data, trial.g);
    const std::vector<float> input = JoinOutput(result.grad_input, type);
    if (LeaveOut(!AreFinite(input), "16-bit gradients beyond the type's range")) continue;
    const bool are_subnormal = type == ElementType::kFloat16 && HasSubnormalHalves(expected.input);
    if (LeaveOut(are_subnormal, "float16 gradients that are subnormal for the most part")) continue;
    EXPECT_LE(RelativeError({input.begin(), input.end()}, expected.input),
              type == ElementType::kFloat16 ? 0x1p-11L : 0x1p-8L);
  }
}

// [N, *, C] is the same values in the same order: the same bits, elsewhere in the tensor.
TEST_P(GradientTest, AndOutputsAreTheSameBitsWithTheChannelsLast) {
  for (ElementType type : {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16}) {
    Trial first(test_case(), InType(MakeData(test_case()), type));
    if (first.data.shape.spatial_size == 1 || first.data.shape.NumValues() > kMostValues / 4) return;
    if (!AreFinite(first.data.x)) continue;
    Trial last(test_case(), ChannelsLast(first.data));
    CaseData gradient = first.data;
    gradient.x = first.g;
    last.g = ChannelsLast(gradient).x;

    const std::string name = absl::StrCat("type ", static_cast<int>(type));
    CaseData result = first.data;
    const BackwardResult expected = Run(first, name);
    const BackwardResult actual = Run(last, name + " last");
    if (HasFailure()) return;
    EXPECT_EQ(HashOf(actual.sums.grad_output), HashOf(expected.sums.grad_output)) << name;
    EXPECT_EQ(HashOf(actual.sums.product), HashOf(expected.sums.product)) << name;
    EXPECT_EQ(HashOf(actual.sums.centred_input), HashOf(expected.sums.centred_input)) << name;
    EXPECT_EQ(HashOf(last.moments.mean), HashOf(first.moments.mean)) << name;
    EXPECT_EQ(HashOf(last.moments.m2), HashOf(first.moments.m2)) << name;
    result.x = JoinOutput(expected.grad_input, type);
    EXPECT_EQ(HashOf(ChannelsLast(result).x), HashOf(JoinOutput(actual.grad_input, type))) << name;
  }
}

// The mistakes that gradients of batch norm are known for.
enum class Fault {
  kNone,
  kNoMeanTerm,
  kNoCovarianceTerm,
  kUnbiasedVariance,
  kNoWeight,
  kEvalAsBatch,
  kSumsForgetASample
};

// The gradient of the input in the plainest way, in double where the fault does not say otherwise.
std::vector<double> PlantedGradient(Fault fault, const Case& test_case, const Trial& trial) {
  const CaseData& data = trial.data;
  const BatchShape& shape = data.shape;
  const auto count = static_cast<double>(shape.ValuesPerChannel());
  std::vector<double> gradient(trial.g.size());
  for (int64_t i = 0; i < shape.num_features; ++i) {
    const auto c = static_cast<size_t>(i);
    const bool given = data.given != nullptr;
    const double mean = given ? data.given->mean[c] : static_cast<double>(trial.exact.mean[c]);
    double variance = given ? data.given->variance[c] : static_cast<double>(trial.exact.variance[c]);
    if (fault == Fault::kUnbiasedVariance && !given) variance *= count / (count - 1);
    const double shifted = variance + test_case.epsilon;
    const double weight = fault == Fault::kNoWeight ? 1 : data.parameters->weight[c];
    double sum = 0, product = 0;
    const auto visit = [&](int64_t samples, auto each) {
      for (int64_t n = 0; n < samples; ++n) {
        for (int64_t s = 0; s < shape.spatial_size; ++s) {
          each(static_cast<size_t>((n * shape.num_features + i) * shape.spatial_size + s));
        }
      }
    };
    visit(shape.batch_size - (fault == Fault::kSumsForgetASample), [&](size_t at) {
      sum += trial.g[at];
      product += trial.g[at] * (data.x[at] - mean);
    });
    const bool through = !given || fault == Fault::kEvalAsBatch;
    if (!through || fault == Fault::kNoMeanTerm) sum = 0;
    if (!through || fault == Fault::kNoCovarianceTerm) product = 0;
    visit(shape.batch_size, [&](size_t at) {
      gradient[at] =
          (trial.g[at] - sum / count - (data.x[at] - mean) * product / count / shifted) * weight / std::sqrt(shifted);
    });
  }
  return gradient;
}

class PlantedGradientFaultTest : public testing::TestWithParam<std::pair<const char*, Fault>> {};

TEST_P(PlantedGradientFaultTest, IsCaughtIfThereIsOne) {
  std::string caught_by;
  for (const char* name : {"forum", "forum_eval", "spatial_49", "n_c_only"}) {
    for (const Case& test_case : AllCases()) {
      if (test_case.name != name) continue;
      const Trial trial(test_case, MakeData(test_case));
      const ExpectedGradients expected = ComputeGradients(test_case, trial.data, trial.g);
      const auto error = RelativeError(PlantedGradient(GetParam().second, test_case, trial), expected.input);
      if (!(error <= kGradientError)) caught_by += std::string(name) + " ";
    }
  }
  EXPECT_EQ(caught_by.empty(), GetParam().second == Fault::kNone) << caught_by;
}

INSTANTIATE_TEST_SUITE_P(, PlantedGradientFaultTest,
                         testing::ValuesIn(std::vector<std::pair<const char*, Fault>>{
                             {"None", Fault::kNone},
                             {"NoMeanTerm", Fault::kNoMeanTerm},
                             {"NoCovarianceTerm", Fault::kNoCovarianceTerm},
                             {"UnbiasedVariance", Fault::kUnbiasedVariance},
                             {"NoWeight", Fault::kNoWeight},
                             {"EvalAsBatch", Fault::kEvalAsBatch},
                             {"SumsForgetASample", Fault::kSumsForgetASample},
                         }),
                         [](const auto& info) { return info.param.first; });

std::vector<std::string> EngineNames() {
  std::vector<std::string> names;
  for (const EngineUnderTest& engine : EnginesUnderTest()) names.push_back(engine.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(, GradientTest,
                         testing::Combine(testing::ValuesIn(EngineNames()), testing::ValuesIn(AllCases())),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param), "_", std::get<1>(info.param).name);
                         });

// Outputs, gradients and sums of a case in every type, as the model gives them, and of the batch itself.
std::vector<std::string> ModelHashes(const Case& test_case) {
  BitModelEngine model;
  std::vector<std::string> hashes = {absl::StrCat(absl::Hex(HashOf(MakeData(test_case).x)))};
  for (ElementType type : {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16}) {
    Trial trial(test_case, InType(MakeData(test_case), type));
    if (!AreFinite(trial.data.x)) continue;
    const absl::StatusOr<ForwardResult> output = RunForward(model, MakeJob(test_case, trial.data));
    if (output->moments) trial.moments = *output->moments;
    const absl::StatusOr<BackwardResult> gradients = RunBackward(model, trial.Job(test_case));
    hashes.push_back(absl::StrCat(absl::Hex(HashOf(*output)), "-", absl::Hex(HashOf(*gradients))));
  }
  return hashes;
}

// The model's bits are the same on every machine and with every compiler; GradientTest ties every device to the model.
// NORMSERVE_RECORD_HASHES=tests/conformance/hashes.json records them anew, which a change of the arithmetic must want.
TEST(KeptHashes, AreThoseOfTheModel) {
  nlohmann::ordered_json found;
  for (const Case& test_case : AllCases()) {
    if (MakeData(test_case).shape.NumValues() <= kMostValues / 4) found[test_case.name] = ModelHashes(test_case);
  }
  EXPECT_GT(found.size(), 100u);
  if (const char* path = std::getenv("NORMSERVE_RECORD_HASHES"); path != nullptr) {
    std::ofstream(path) << found.dump(1) << "\n";
    return;
  }
  std::ifstream file(NORMSERVE_CONFORMANCE_HASHES);
  const auto kept = nlohmann::ordered_json::parse(file, nullptr, /*allow_exceptions=*/false);
  for (const auto& [name, hashes] : found.items())
    EXPECT_EQ(hashes, kept.value(name, nlohmann::ordered_json())) << name;
  EXPECT_EQ(found.size(), kept.size());
}

class RepeatTest : public testing::TestWithParam<std::string> {};

// Many in flight at once, so that a missing barrier or a buffer lent too early would show.
TEST_P(RepeatTest, AHundredRunsGiveOneSetOfBits) {
  constexpr int kRuns = 100;
  absl::StatusOr<Engine*> engine = SharedEngine(GetParam());
  ASSERT_TRUE(engine.ok()) << engine.status();
  for (const Case& test_case : AllCases()) {
    if (test_case.name != "forum" && test_case.name != "n_c_only" && test_case.name != "spatial_49" &&
        test_case.name != "channels_129" && test_case.name != "forum_eval") {
      continue;
    }
    for (ElementType type : {ElementType::kFloat32, ElementType::kFloat16, ElementType::kBFloat16}) {
      Trial trial(test_case, InType(MakeData(test_case), type));
      const absl::StatusOr<ForwardResult> first = RunForward(**engine, MakeJob(test_case, trial.data));
      ASSERT_TRUE(first.ok()) << first.status();
      if (first->moments) trial.moments = *first->moments;
      const absl::StatusOr<BackwardResult> first_gradients = RunBackward(**engine, trial.Job(test_case));
      ASSERT_TRUE(first_gradients.ok()) << first_gradients.status();
      const uint64_t output = HashOf(*first), gradients = HashOf(*first_gradients);
      std::atomic<int> differing{0};
      absl::BlockingCounter left(2 * kRuns);
      for (int run = 0; run < kRuns; ++run) {
        (*engine)->Forward(MakeJob(test_case, trial.data), [&, output](absl::StatusOr<ForwardResult> result) {
          if (!result.ok() || HashOf(*result) != output) ++differing;
          left.DecrementCount();
        });
        (*engine)->Backward(trial.Job(test_case), [&, gradients](absl::StatusOr<BackwardResult> result) {
          if (!result.ok() || HashOf(*result) != gradients) ++differing;
          left.DecrementCount();
        });
      }
      left.Wait();
      EXPECT_EQ(differing, 0) << test_case.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, RepeatTest, testing::ValuesIn(EngineNames()), [](const auto& info) { return info.param; });

// A job or a buffer that an engine still holds when it ends fails here.
class EnginesEndLast : public testing::Environment {
 public:
  void TearDown() override { DestroySharedEngines(); }
};
[[maybe_unused]] const auto* const engines_end_last = testing::AddGlobalTestEnvironment(new EnginesEndLast);

}  // namespace
}  // namespace normserve::conformance
