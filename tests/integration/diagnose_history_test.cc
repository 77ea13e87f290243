// What Diagnose says by what a server saw before, also by one that was killed since.
#include <gtest/gtest.h>
#include <signal.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/durable_server.h"

namespace normserve::integration {
namespace {

using testing::HasSubstr;
using testing::Not;

class DiagnoseHistoryTest : public DurabilityTest {
 protected:
  void SetUp() override { server_ = Start(); }

  // As nn.BatchNorm2d(4), but for momentum.
  void Create(const std::string& name, double momentum = 0.1) {
    v1::CreateSessionRequest request = Creation(name, 4);
    request.mutable_config()->set_momentum(momentum);
    MustCall(*server_, &Stub::CreateSession, request);
  }

  // Batches of [64, 4, 4] normal values.
  void Train(const std::string& name, int batches, double mean = 0, double deviation = 1) {
    for (int i = 0; i < batches; ++i) {
      std::normal_distribution<float> normal(static_cast<float>(mean), static_cast<float>(deviation));
      std::vector<float> values(64 * 4 * 4);
      for (float& value : values) value = normal(random_);
      MustCall(*server_, &Stub::Forward, MakeForward(name, {64, 4, 4}, values));
    }
  }

  v1::Diagnosis Diagnose(const std::string& name) {
    v1::DiagnoseRequest request;
    request.set_name(name);
    return MustCall(*server_, &Stub::Diagnose, request).sessions(0);
  }

  // The verdict, the cause of most of the gap, and that a server which was killed and is back says the very same.
  void ExpectFound(const std::string& name, v1::Verdict verdict, v1::Cause main_cause) {
    SCOPED_TRACE(name);
    const v1::Diagnosis before = Diagnose(name);
    Restart(server_, SIGKILL);
    const v1::Diagnosis found = Diagnose(name);
    EXPECT_EQ(found.DebugString(), before.DebugString());
    EXPECT_EQ(found.verdict(), verdict) << found.DebugString();
    double share = 0;
    for (const v1::CauseShare& cause : found.causes()) {
      if (cause.cause() == main_cause) share = cause.share();
    }
    EXPECT_GT(share, 0.8 * found.gap_rms()) << found.DebugString();
  }

  std::unique_ptr<ServerProcess> server_;
  std::mt19937 random_{11};
};

TEST_F(DiagnoseHistoryTest, OtherDataAfterTwoHundredBatchesAreAShift) {
  Create("shifted");
  Train("shifted", 200);
  Train("shifted", 1, 3, 2);
  ExpectFound("shifted", v1::VERDICT_TRAIN_EVAL_GAP, v1::CAUSE_DATA_SHIFT);
  EXPECT_THAT(Diagnose("shifted").explanation(), HasSubstr("7 earlier batches; this batch comes from other data"));
}

TEST_F(DiagnoseHistoryTest, DataThatStayWhereAverageIsSlowAreALag) {
  Create("slow", 0.01);
  Train("slow", 600);
  Train("slow", 9, 3, 2);
  ExpectFound("slow", v1::VERDICT_TRAIN_EVAL_GAP, v1::CAUSE_MOMENTUM_LAG);
}

TEST_F(DiagnoseHistoryTest, StatisticsOfBeforeThatWereRestoredLag) {
  Create("restored");
  Train("restored", 3);
  TakeSnapshot(*server_, "restored", "young");
  Train("restored", 60);
  TakeSnapshot(*server_, "restored", "before");
  Train("restored", 60, 3, 2);
  EXPECT_EQ(Diagnose("restored").verdict(), v1::VERDICT_HEALTHY);
  MustCall(*server_, &Stub::RestoreState, OfSnapshot<v1::RestoreStateRequest>("restored", "before"));
  ExpectFound("restored", v1::VERDICT_TRAIN_EVAL_GAP, v1::CAUSE_MOMENTUM_LAG);
}

// Three batches are counted since 5 and 9 were set: not 0.729 of mean 0 and variance 1, but of these.
TEST_F(DiagnoseHistoryTest, StatisticsThatWereSetAreNotTakenForInitialOnes) {
  v1::CreateSessionRequest request = Creation("set", 4);
  for (int c = 0; c < 4; ++c) {
    request.mutable_statistics()->add_running_mean(5);
    request.mutable_statistics()->add_running_var(9);
  }
  MustCall(*server_, &Stub::CreateSession, request);
  Train("set", 3, 5, 3);
  const v1::Diagnosis sound = Diagnose("set");
  EXPECT_EQ(sound.verdict(), v1::VERDICT_HEALTHY) << sound.DebugString();
  Train("set", 4, 0, 1);  // after which half of the batches before are of each kind
  ExpectFound("set", v1::VERDICT_TRAIN_EVAL_GAP, v1::CAUSE_DATA_SHIFT);
  Train("set", 4, 0, 1);
  ExpectFound("set", v1::VERDICT_TRAIN_EVAL_GAP, v1::CAUSE_MOMENTUM_LAG);
  EXPECT_THAT(Diagnose("set").explanation(), HasSubstr("set to others before the newest 11 batches, momentum 0.1"));
}

TEST_F(DiagnoseHistoryTest, InitialStatisticsThatAreSaidOutLoudAreInitialOnes) {
  v1::CreateSessionRequest request = Creation("fresh", 4);
  for (int c = 0; c < 4; ++c) {
    request.mutable_statistics()->add_running_mean(0);
    request.mutable_statistics()->add_running_var(1);
  }
  MustCall(*server_, &Stub::CreateSession, request);
  Train("fresh", 3, 5, 0.5);
  ExpectFound("fresh", v1::VERDICT_TRAIN_EVAL_GAP, v1::CAUSE_INITIALISATION);
}

}  // namespace
}  // namespace normserve::integration
