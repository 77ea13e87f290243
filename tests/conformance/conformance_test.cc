// Every engine on every device computes every case.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <thread>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "kernels/check.h"
#include "tests/conformance/engines.h"
#include "tests/conformance/hash.h"
#include "tests/conformance/oracle.h"

namespace normserve::conformance {
namespace {

using ::testing::IsEmpty;

const std::vector<Case>& AllCases() {
  static const auto* cases = [] {
    auto loaded = LoadCases(NORMSERVE_CONFORMANCE_CASES);
    if (!loaded.ok()) {
      fprintf(stderr, "%s\n", loaded.status().ToString().c_str());
      std::abort();
    }
    return new std::vector<Case>(*std::move(loaded));
  }();
  return *cases;
}

std::vector<std::string> EngineNames() {
  std::vector<std::string> names;
  for (const EngineUnderTest& engine : EnginesUnderTest()) names.push_back(engine.name);
  return names;
}

// An engine that this machine lacks fails: a suite that skips what it should prove proves nothing.
class EngineTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    absl::StatusOr<Engine*> engine = SharedEngine(GetParam());
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *engine;
  }
  Engine* engine_ = nullptr;
};

class CaseTest : public testing::TestWithParam<std::tuple<std::string, Case>> {};

// And the same bits, output and moments, as every other device and variant: no case leaves float32's normal range.
TEST_P(CaseTest, GivesWhatTheOracleGives) {
  const auto& [engine_name, test_case] = GetParam();
  absl::StatusOr<Engine*> engine = SharedEngine(engine_name);
  ASSERT_TRUE(engine.ok()) << engine.status();
  const CaseData data = MakeData(test_case);
  const absl::StatusOr<ForwardResult> result = RunForward(**engine, MakeJob(test_case, data));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(Discrepancies(test_case, data, ComputeExpected(test_case, data), *result), IsEmpty()) << test_case.reason;

  if (engine_name == "reference") return;  // double precision
  static auto* first_bits = new std::map<std::string, std::pair<std::string, uint64_t>>;
  const auto& [first, bits] =
      first_bits->emplace(test_case.name, std::pair(engine_name, HashOf(*result))).first->second;
  EXPECT_EQ(HashOf(*result), bits) << "other bits than on " << first;
}

INSTANTIATE_TEST_SUITE_P(, CaseTest, testing::Combine(testing::ValuesIn(EngineNames()), testing::ValuesIn(AllCases())),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param), "_", std::get<1>(info.param).name);
                         });

Case ForumCase() { return Case{.name = "forum", .shape = {4, 3, 32, 32}, .affine = Affine::kDrawn, .reason = ""}; }

TEST_P(EngineTest, JoinsInputPiecesThatAreCutInsideValues) {
  for (const char* name : {"forum", "spatial_odd", "n_c_only", "imagenet_64x56"}) {
    for (const Case& test_case : AllCases()) {
      if (test_case.name != name) continue;
      EXPECT_THAT(CheckCase(*engine_, test_case, Cut::kOddPieces), IsEmpty()) << name;
    }
  }
}

TEST_P(EngineTest, GivesTheSameBitsForTheSameBatch) {
  const Case test_case = ForumCase();
  const CaseData data = MakeData(test_case);
  absl::StatusOr<ForwardResult> first = RunForward(*engine_, MakeJob(test_case, data));
  ASSERT_TRUE(first.ok()) << first.status();
  const std::vector<float> expected = JoinOutput(first->output);
  for (Cut cut : {Cut::kWhole, Cut::kOddPieces}) {
    absl::StatusOr<ForwardResult> again = RunForward(*engine_, MakeJob(test_case, data, cut));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(JoinOutput(again->output), expected);
    EXPECT_EQ(again->moments->mean, first->moments->mean);
    EXPECT_EQ(again->moments->m2, first->moments->m2);
  }
}

TEST_P(EngineTest, LeavesAnOutputAloneWhileItIsHeld) {
  const Case test_case = ForumCase();
  const CaseData data = MakeData(test_case);
  absl::StatusOr<ForwardResult> held = RunForward(*engine_, MakeJob(test_case, data));
  ASSERT_TRUE(held.ok()) << held.status();
  const std::vector<float> before = JoinOutput(held->output);
  Case other = test_case;
  for (int i = 0; i < 20; ++i) {  // of the same size, so that a pool would hand out the same buffer
    other.seed = 100 + i;
    EXPECT_THAT(CheckCase(*engine_, other), IsEmpty());
  }
  EXPECT_EQ(JoinOutput(held->output), before);
}

// Four threads with 24 jobs each in flight, of every size; results are held for a while and dropped on another thread.
TEST_P(EngineTest, AnswersManyThreadsWithManyJobsInFlight) {
  struct Prepared {
    Case test_case;
    CaseData data;
    Expected expected;
  };
  std::vector<Prepared> prepared;
  for (const char* name : {"forum", "n_c_only", "spatial_odd", "count_2", "given_running", "given_with_moments",
                           "large_mean_1000", "imagenet_64x56", "constant_1e20"}) {
    for (const Case& test_case : AllCases()) {
      if (test_case.name != name) continue;
      CaseData data = MakeData(test_case);
      Expected expected = ComputeExpected(test_case, data);
      prepared.push_back({test_case, std::move(data), std::move(expected)});
    }
  }
  ASSERT_EQ(prepared.size(), 9u);

  constexpr int kThreads = 4, kJobs = 24;
  absl::Mutex mutex;
  std::vector<std::pair<const Prepared*, absl::StatusOr<ForwardResult>>> answers;  // guarded by mutex
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int j = 0; j < kJobs; ++j) {
        const Prepared& item = prepared[static_cast<size_t>(t * 5 + j) % prepared.size()];
        const Cut cut = (t + j) % 3 == 0 ? Cut::kOddPieces : Cut::kWhole;
        engine_->Forward(MakeJob(item.test_case, item.data, cut), [&mutex, &answers, &item](auto answer) {
          absl::MutexLock lock(&mutex);
          answers.emplace_back(&item, std::move(answer));
        });
      }
    });
  }
  size_t checked = 0;
  while (checked < kThreads * kJobs) {
    std::pair<const Prepared*, absl::StatusOr<ForwardResult>> answer;
    {
      absl::MutexLock lock(&mutex);
      mutex.Await(absl::Condition(+[](decltype(answers)* list) { return !list->empty(); }, &answers));
      answer = std::move(answers.back());
      answers.pop_back();
    }
    ASSERT_TRUE(answer.second.ok()) << answer.second.status();
    EXPECT_THAT(Discrepancies(answer.first->test_case, answer.first->data, answer.first->expected, *answer.second),
                IsEmpty())
        << answer.first->test_case.name;
    ++checked;
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(answers.empty());
}

TEST_P(EngineTest, AFreshEngineFinishesItsJobsBeforeItIsGone) {
  const EngineUnderTest* under_test = nullptr;
  for (const EngineUnderTest& candidate : EnginesUnderTest()) {
    if (candidate.name == GetParam()) under_test = &candidate;
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine = under_test->factory();
  ASSERT_TRUE(engine.ok()) << engine.status();
  const Case test_case = ForumCase();
  const CaseData data = MakeData(test_case);
  std::atomic<int> finished = 0;
  for (int i = 0; i < 50; ++i) {
    (*engine)->Forward(MakeJob(test_case, data), [&](absl::StatusOr<ForwardResult> result) {
      EXPECT_TRUE(result.ok()) << result.status();
      ++finished;
    });
  }
  engine->reset();
  EXPECT_EQ(finished, 50);
}

// A batch of two channels [2, 3, 5] with one value of channel 1 replaced.
CaseData DataWith(Case& test_case, float value) {
  test_case = Case{.name = "", .shape = {2, 3, 5}, .affine = Affine::kDrawn, .reason = ""};
  CaseData data = MakeData(test_case);
  data.x[5 + 3] = value;
  return data;
}

TEST_P(EngineTest, NonFiniteValuesSpoilTheMomentsOfTheirOwnChannelOnly) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float value : {std::nanf(""), infinity, -infinity}) {
    Case test_case;
    CaseData data = DataWith(test_case, value);
    absl::StatusOr<ForwardResult> result = RunForward(*engine_, MakeJob(test_case, data));
    ASSERT_TRUE(result.ok()) << result.status();
    ASSERT_TRUE(result->moments.has_value());
    EXPECT_FALSE(std::isfinite(result->moments->mean[1]) && std::isfinite(result->moments->m2[1])) << value;
    data.x[5 + 3] = 0;
    const Expected expected = ComputeExpected(test_case, data);
    for (size_t c : {0, 2}) {
      EXPECT_NEAR(result->moments->mean[c], expected.mean[c], 1e-6);
      EXPECT_NEAR(result->moments->BiasedVariance(c), expected.variance[c], 1e-6);
    }
  }
}

TEST_P(EngineTest, NonFiniteValuesPassThroughEvaluationAsIeeeSays) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float value : {std::nanf(""), infinity, -infinity}) {
    Case test_case;
    CaseData data = DataWith(test_case, value);
    test_case.given = GivenRecipe{0.5, 0.1, 0};
    data.given = MakeData(test_case).given;
    absl::StatusOr<ForwardResult> result = RunForward(*engine_, MakeJob(test_case, data));
    ASSERT_TRUE(result.ok()) << result.status();
    const std::vector<float> y = JoinOutput(result->output);
    for (size_t i = 0; i < y.size(); ++i) {
      if (i != 5 + 3) {
        EXPECT_TRUE(std::isfinite(y[i])) << i;
      } else if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(y[i])) << y[i];
      } else {
        EXPECT_EQ(y[i], data.parameters->weight[1] < 0 ? -value : value);
      }
    }
  }
}

// Finite values whose squares leave float32: the moments are right, or say that they are not.
TEST_P(EngineTest, MomentsThatOverflowFloat32AreNeverWrongNumbers) {
  Case test_case{.name = "", .shape = {8, 2, 4}, .data = {DataRecipe::Kind::kNormal, 0, 1e25}, .reason = ""};
  const CaseData data = MakeData(test_case);
  const Expected expected = ComputeExpected(test_case, data);
  absl::StatusOr<ForwardResult> result = RunForward(*engine_, MakeJob(test_case, data));
  ASSERT_TRUE(result.ok()) << result.status();
  for (size_t c = 0; c < 2; ++c) {
    const double variance = result->moments->BiasedVariance(c);
    if (!std::isfinite(variance)) continue;
    EXPECT_NEAR(variance / static_cast<double>(expected.variance[c]), 1, 1e-5);
  }
}

// A job or a buffer that an engine still holds when it ends fails here.
class EnginesEndLast : public testing::Environment {
 public:
  void TearDown() override { DestroySharedEngines(); }
};
[[maybe_unused]] const auto* const engines_end_last = testing::AddGlobalTestEnvironment(new EnginesEndLast);

INSTANTIATE_TEST_SUITE_P(, EngineTest, testing::ValuesIn(EngineNames()), [](const auto& info) { return info.param; });

}  // namespace
}  // namespace normserve::conformance
