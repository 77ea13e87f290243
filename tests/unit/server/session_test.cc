#include "server/session/session.h"

#include <gtest/gtest.h>

#include <cmath>

#include "server/session/session_registry.h"
#include "tests/unit/server/answers.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Create(registry_, {.name = "a", .config = {.num_features = 2}}).ok());
    session_ = *registry_.Find("a");
  }

  SessionRegistry registry_{SessionLimits{}};
  std::shared_ptr<Session> session_;
};

TEST_F(SessionTest, SetModeIsAChangeLikeAnyOtherEvenToTheSameMode) {
  const auto before = session_->Snapshot();
  EXPECT_EQ(SetMode(*session_, {}, Mode::kTrain)->generation, 1);
  EXPECT_EQ(SetMode(*session_, {}, Mode::kEval)->generation, 2);
  EXPECT_EQ(session_->Snapshot()->mode, Mode::kEval);
  EXPECT_EQ(before->mode, Mode::kTrain);
  EXPECT_EQ(before->generation, 0);
  // What did not change is shared.
  EXPECT_EQ(session_->Snapshot()->running, before->running);
  EXPECT_EQ(session_->Snapshot()->lineage, before->lineage);
}

TEST_F(SessionTest, SetParametersReplacesWhatIsGivenAndStartsALineage) {
  ASSERT_TRUE(SetParameters(*session_, {}, {3, 4}, {}).ok());
  EXPECT_EQ(session_->Snapshot()->parameters->weight, std::vector<float>({3, 4}));
  EXPECT_EQ(session_->Snapshot()->parameters->bias, std::vector<float>({0, 0}));
  EXPECT_EQ(session_->Snapshot()->lineage, 1);
  ASSERT_TRUE(SetParameters(*session_, {}, {}, {5, 6}).ok());
  EXPECT_EQ(session_->Snapshot()->parameters->weight, std::vector<float>({3, 4}));
  EXPECT_EQ(session_->Snapshot()->parameters->bias, std::vector<float>({5, 6}));
}

TEST_F(SessionTest, ParametersThatDoNotFitAreRefused) {
  const auto before = session_->Snapshot();
  for (const absl::Status& status :
       {SetParameters(*session_, {}, {}, {}).status(), SetParameters(*session_, {}, {1}, {}).status(),
        SetParameters(*session_, {}, {1, NAN}, {}).status(),
        SetParameters(*session_, {}, {1, 2}, {1, INFINITY}).status()}) {
    EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  }
  EXPECT_EQ(session_->Snapshot(), before);
}

TEST_F(SessionTest, ARepeatedChangeGivesTheFirstAnswerWhateverHappenedSince) {
  const ChangeGuard guard{.request_id = "id", .expected_generation = 0};
  ASSERT_EQ(SetMode(*session_, guard, Mode::kEval)->generation, 1);
  ASSERT_EQ(SetMode(*session_, {}, Mode::kTrain)->generation, 2);
  const auto repeated = SetMode(*session_, guard, Mode::kEval);
  ASSERT_TRUE(repeated.ok()) << repeated.status();
  EXPECT_EQ(repeated->generation, 1);
  EXPECT_EQ(repeated->mode, Mode::kEval);
  EXPECT_EQ(session_->Snapshot()->generation, 2);
  EXPECT_EQ(session_->Snapshot()->mode, Mode::kTrain);
}

TEST_F(SessionTest, AnIdUsedForAnotherChangeIsRefused) {
  ASSERT_TRUE(SetMode(*session_, {.request_id = "id"}, Mode::kEval).ok());
  EXPECT_THAT(SetMode(*session_, {.request_id = "id"}, Mode::kTrain).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
  EXPECT_THAT(SetParameters(*session_, {.request_id = "id"}, {1, 2}, {}).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
  EXPECT_EQ(session_->Snapshot()->generation, 1);
}

TEST_F(SessionTest, ARequestThatFailedIsNotRemembered) {
  const ChangeGuard guard{.request_id = "id", .expected_generation = 1};
  EXPECT_THAT(SetMode(*session_, guard, Mode::kEval).status(),
              Fails(absl::StatusCode::kAborted, ErrorReason::kGenerationMismatch));
  ASSERT_TRUE(SetMode(*session_, {}, Mode::kTrain).ok());
  EXPECT_EQ(SetMode(*session_, guard, Mode::kEval)->generation, 2);
}

TEST_F(SessionTest, ADeletedSessionTakesNoMoreChanges) {
  ASSERT_TRUE(Delete(registry_, "a", {}).ok());
  EXPECT_THAT(SetMode(*session_, {}, Mode::kEval).status(),
              Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
}

TEST_F(SessionTest, ASessionThatIsNotAffineTakesNoParameters) {
  ASSERT_TRUE(Create(registry_, {.name = "plain", .config = {.num_features = 2, .affine = false}}).ok());
  EXPECT_THAT(SetParameters(**registry_.Find("plain"), {}, {1, 2}, {}).status(),
              Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kNotAffine));
  SessionDraft draft{.name = "x", .config = {.num_features = 2, .affine = false}, .parameters = {.bias = {1, 2}}};
  EXPECT_THAT(Create(registry_, draft).status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  SessionDraft untracked{.name = "y", .config = {.num_features = 1, .track_running_stats = false}};
  untracked.statistics = NormalizationStatistics{.mean = {0}, .variance = {1}};
  EXPECT_THAT(Create(registry_, untracked).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
}

}  // namespace
}  // namespace normserve
