#include "server/session/forward_call.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/unit/server/answers.h"
#include "tests/unit/server/held_engine.h"
#include "tests/unit/server/request_maker.h"
#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

const std::vector<int64_t> kShape = {2, 2, 2};
const std::vector<float> kBatch = {1, 2, 30, 40, 3, 4, 50, 60};
const std::vector<float> kOtherBatch = {9, 8, 3, 4, 7, 7, 5, 6};

// The reply of one call, once it is there.
using Reply = std::shared_ptr<std::optional<absl::StatusOr<ForwardReply>>>;

class ForwardCallTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Create(registry_, {.name = "a", .config = {.num_features = 2}}).ok());
    session_ = *registry_.Find("a");
  }

  Reply Start(ForwardRequest request, IsCancelled is_cancelled = [] { return false; }) {
    auto reply = std::make_shared<std::optional<absl::StatusOr<ForwardReply>>>();
    ForwardCall::Start(registry_, engine_, std::move(request), std::move(is_cancelled),
                       [reply](absl::StatusOr<ForwardReply> result) {
                         EXPECT_FALSE(reply->has_value()) << "replied twice";
                         *reply = std::move(result);
                       });
    return reply;
  }

  // Starts and lets the engine finish.
  absl::StatusOr<ForwardReply> Run(ForwardRequest request) {
    const Reply reply = Start(std::move(request));
    while (engine_.num_held() > 0) engine_.Release();
    return *std::move(*reply);
  }

  SessionRegistry registry_{SessionLimits{}};
  HeldEngine engine_;
  std::shared_ptr<Session> session_;
};

TEST_F(ForwardCallTest, TrainingNormalisesWithTheBatchAndFoldsItIn) {
  const auto reply = Run(MakeForward("a", kShape, kBatch));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->update, Update::kRunning);
  EXPECT_EQ(reply->normalized_with, NormalizedWith::kBatch);
  EXPECT_EQ(reply->snapshot_generation, 0);
  EXPECT_EQ(reply->generation, 1);
  EXPECT_EQ(reply->num_batches_tracked, 1);
  EXPECT_FALSE(reply->batch_moments.has_value());
  const auto state = session_->Snapshot();
  EXPECT_DOUBLE_EQ(state->running->mean[0], 0.1 * 2.5);
  EXPECT_DOUBLE_EQ(state->running->variance[0], 0.9 + 0.1 * (5.0 / 3));
  EXPECT_NEAR(Values(reply->output)[0], -1.5 / std::sqrt(1.25 + 1e-5), 1e-6);
}

TEST_F(ForwardCallTest, EvaluationChangesNothing) {
  ASSERT_TRUE(SetMode(*session_, {}, Mode::kEval).ok());
  const auto before = session_->Snapshot();
  ForwardRequest request = MakeForward("a", kShape, kBatch, "id");
  request.return_batch_moments = true;
  const auto reply = Run(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->update, Update::kNone);
  EXPECT_EQ(reply->normalized_with, NormalizedWith::kRunning);
  EXPECT_EQ(reply->batch_moments->count, 4);
  EXPECT_EQ(session_->Snapshot(), before);
}

TEST_F(ForwardCallTest, TheCallsOwnChoicesOverrideTheMode) {
  ForwardRequest request = MakeForward("a", kShape, kBatch);
  request.mode = Mode::kEval;
  EXPECT_EQ(Run(request)->update, Update::kNone);
  request.update = Update::kRunning;
  request.normalize_with = NormalizedWith::kGiven;
  request.given = {.count = 4, .mean = {1, 2}, .m2 = {4, 16}};
  const auto reply = Run(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->update, Update::kRunning);
  EXPECT_EQ(reply->normalized_with, NormalizedWith::kGiven);
  EXPECT_NEAR(Values(reply->output)[3], (40 - 2) / std::sqrt(4 + 1e-5), 1e-5);
  // What is folded in is the batch.
  EXPECT_DOUBLE_EQ(session_->Snapshot()->running->mean[0], 0.1 * 2.5);
  EXPECT_EQ(session_->Snapshot()->mode, Mode::kTrain);
}

TEST_F(ForwardCallTest, BatchesThatDoNotFitAreRefusedBeforeTheEngineSeesThem) {
  const int64_t huge = int64_t{1} << 40;
  struct Case {
    std::vector<int64_t> shape;
    std::vector<float> values;
    ErrorReason reason;
    const char* text;
  };
  const Case cases[] = {
      {{2, 3, 2}, std::vector<float>(12), ErrorReason::kShapeMismatch, "input has 3 channels, session \"a\" has 2"},
      {{2, 2, 2}, std::vector<float>(7), ErrorReason::kShapeMismatch, "28 bytes"},
      {{2, 2, 2}, {}, ErrorReason::kShapeMismatch, "0 bytes"},
      {{}, {}, ErrorReason::kShapeMismatch, "[]"},
      {{8}, std::vector<float>(8), ErrorReason::kShapeMismatch, "[8]"},
      {{-2, 2, 2}, kBatch, ErrorReason::kShapeMismatch, "-2"},
      {{2, 2, 0}, {}, ErrorReason::kShapeMismatch, "dimension 2"},
      {{2, 0, 2}, {}, ErrorReason::kShapeMismatch, "dimension 1"},
      {{2, 2, -2}, kBatch, ErrorReason::kShapeMismatch, "dimension 2"},
      {{huge, 2, huge}, kBatch, ErrorReason::kShapeMismatch, "overflows"},
      {{0, 2, huge, huge}, {}, ErrorReason::kShapeMismatch, "overflows"},
      {{1, 2, 1, 1},
       {1, 2},
       ErrorReason::kBatchTooSmall,
       "Expected more than 1 value per channel when training, got input size torch.Size([1, 2, 1, 1])"},
      {{1, 2}, {1, 2}, ErrorReason::kBatchTooSmall, "torch.Size([1, 2])"},
  };
  const auto before = session_->Snapshot();
  for (const Case& c : cases) {
    const Reply reply = Start(MakeForward("a", c.shape, c.values));
    ASSERT_TRUE(reply->has_value()) << DimensionsText(c.shape);
    EXPECT_THAT((*reply)->status(), Fails(absl::StatusCode::kInvalidArgument, c.reason));
    EXPECT_TRUE(absl::StrContains((*reply)->status().message(), c.text)) << (*reply)->status();
  }
  EXPECT_EQ(engine_.num_held(), 0u);
  EXPECT_EQ(session_->Snapshot(), before);
}

TEST_F(ForwardCallTest, OneValuePerChannelIsFineWhereTheBatchIsNotUsed) {
  ForwardRequest request = MakeForward("a", {1, 2}, {1, 2});
  request.mode = Mode::kEval;
  request.return_batch_moments = true;
  const auto reply = Run(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->batch_moments->count, 1);
  request.update = Update::kRunning;
  EXPECT_THAT(Run(request).status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kBatchTooSmall));
  request.update = Update::kNone;
  request.normalize_with = NormalizedWith::kBatch;
  EXPECT_THAT(Run(request).status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kBatchTooSmall));
}

TEST_F(ForwardCallTest, AnEmptyBatchGivesAnEmptyOutputAndIsNotCounted) {
  const auto before = session_->Snapshot();
  ForwardRequest request = MakeForward("a", {0, 2, 5, 5}, {});
  request.return_batch_moments = true;
  const auto reply = Run(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->update, Update::kNone);
  EXPECT_EQ(reply->batch_moments->count, 0);
  EXPECT_TRUE(reply->output.pieces.empty());
  EXPECT_EQ(reply->dimensions, std::vector<int64_t>({0, 2, 5, 5}));
  EXPECT_EQ(session_->Snapshot(), before);
}

TEST_F(ForwardCallTest, GivenStatisticsThatDoNotFitAreNamed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::pair<const char*, Moments> cases[] = {
      {"given.count", {.count = 0, .mean = {0, 0}, .m2 = {1, 1}}},
      {"given.mean", {.count = 1, .mean = {0}, .m2 = {1, 1}}},
      {"given.mean", {.count = 1, .mean = {0, nan}, .m2 = {1, 1}}},
      {"given.m2", {.count = 1, .mean = {0, 0}, .m2 = {1}}},
      {"given.mean", {.count = 1, .mean = {0, -1e39}, .m2 = {1, 1}}},
      {"given.m2", {.count = 4, .mean = {0, 0}, .m2 = {1, 2e39}}},
      {"given.m2", {.count = 1, .mean = {0, 0}, .m2 = {1, -1}}},
  };
  for (const auto& [field, given] : cases) {
    ForwardRequest request = MakeForward("a", kShape, kBatch);
    request.normalize_with = NormalizedWith::kGiven;
    request.given = given;
    const absl::Status status = Run(request).status();
    ASSERT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField)) << field;
    EXPECT_EQ(GetErrorDetails(status)->metadata.at("field"), field);
  }
}

TEST_F(ForwardCallTest, ANonFiniteBatchNeverEntersTheStatistics) {
  const auto before = session_->Snapshot();
  std::vector<float> batch = kBatch;
  batch[7] = std::numeric_limits<float>::infinity();
  const absl::Status status = Run(MakeForward("a", kShape, batch)).status();
  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite));
  EXPECT_TRUE(absl::StrContains(status.message(), "channel 1 is inf at sample 1, position 1")) << status;
  std::vector<float> large = kBatch;
  large[0] = 3e38f;
  EXPECT_TRUE(absl::StrContains(Run(MakeForward("a", kShape, large)).status().message(), "overflow float32"));
  EXPECT_EQ(session_->Snapshot(), before);
  // Where nothing is updated it passes through.
  ForwardRequest request = MakeForward("a", kShape, batch);
  request.update = Update::kNone;
  EXPECT_TRUE(Run(request).ok());
}

TEST_F(ForwardCallTest, CancelledForwardLeavesTheStateUntouched) {
  const auto before = session_->Snapshot();
  bool cancelled = false;
  const Reply reply = Start(MakeForward("a", kShape, kBatch, "id"), [&] { return cancelled; });
  cancelled = true;
  engine_.Release();
  EXPECT_EQ((*reply)->status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(session_->Snapshot(), before);
  // And may be sent again under the same id.
  EXPECT_EQ(Run(MakeForward("a", kShape, kBatch, "id"))->generation, 1);
}

TEST_F(ForwardCallTest, AnEngineThatFailsLeavesTheStateUntouched) {
  const auto before = session_->Snapshot();
  const Reply reply = Start(MakeForward("a", kShape, kBatch, "id"));
  engine_.Refuse(MakeError(absl::StatusCode::kUnavailable, ErrorReason::kDeviceLost, "gone"));
  EXPECT_THAT((*reply)->status(), Fails(absl::StatusCode::kUnavailable, ErrorReason::kDeviceLost));
  EXPECT_EQ(session_->Snapshot(), before);
  EXPECT_EQ(Run(MakeForward("a", kShape, kBatch, "id"))->generation, 1);
}

TEST_F(ForwardCallTest, BatchesAreFoldedIntoTheNewestState) {
  const Reply first = Start(MakeForward("a", kShape, kBatch)), second = Start(MakeForward("a", kShape, kOtherBatch));
  ASSERT_TRUE(SetMode(*session_, {}, Mode::kEval).ok());  // affects neither
  engine_.Release();
  engine_.Release();
  EXPECT_EQ((*first)->value().generation, 2);
  EXPECT_EQ((*second)->value().generation, 3);
  EXPECT_EQ((*second)->value().snapshot_generation, 0);
  const auto state = session_->Snapshot();
  EXPECT_EQ(state->num_batches_tracked, 2);
  EXPECT_EQ(state->mode, Mode::kEval);
  EXPECT_DOUBLE_EQ(state->running->mean[0], 0.9 * (0.1 * 2.5) + 0.1 * 7.75);
}

TEST_F(ForwardCallTest, NewParametersOrDeletionAbortWhatWasAdmittedBefore) {
  Reply training = Start(MakeForward("a", kShape, kBatch));
  ForwardRequest evaluation = MakeForward("a", kShape, kBatch);
  evaluation.mode = Mode::kEval;
  const Reply reading = Start(evaluation);
  ASSERT_TRUE(SetParameters(*session_, {}, {2, 2}, {}).ok());
  const auto after = session_->Snapshot();
  engine_.Release();
  engine_.Release();
  EXPECT_THAT((*training)->status(), Fails(absl::StatusCode::kAborted, ErrorReason::kLineageChanged));
  EXPECT_TRUE((*reading)->ok());
  EXPECT_EQ(session_->Snapshot(), after);

  training = Start(MakeForward("a", kShape, kBatch));
  ASSERT_TRUE(Delete(registry_, "a", {}).ok());
  engine_.Release();
  EXPECT_THAT((*training)->status(), Fails(absl::StatusCode::kAborted, ErrorReason::kLineageChanged));
}

TEST_F(ForwardCallTest, ExpectedGenerationIsDecidedAtTheCommit) {
  ForwardRequest request = MakeForward("a", kShape, kBatch);
  request.guard.expected_generation = 0;
  const Reply first = Start(request), second = Start(request);
  engine_.Release();
  engine_.Release();
  EXPECT_TRUE((*first)->ok());
  EXPECT_THAT((*second)->status(), Fails(absl::StatusCode::kAborted, ErrorReason::kGenerationMismatch));
  EXPECT_EQ(session_->Snapshot()->num_batches_tracked, 1);
  // And before the engine is troubled, where it is known by then.
  EXPECT_THAT((*Start(request))->status(), Fails(absl::StatusCode::kAborted, ErrorReason::kGenerationMismatch));
  request.guard = {.expected_uid = "other"};
  EXPECT_THAT((*Start(request))->status(), Fails(absl::StatusCode::kAborted, ErrorReason::kUidMismatch));
}

TEST_F(ForwardCallTest, ARepeatGivesTheFirstAnswerBitForBitAndChangesNothing) {
  for (const NormalizedWith with : {NormalizedWith::kBatch, NormalizedWith::kRunning, NormalizedWith::kGiven}) {
    ForwardRequest request = MakeForward("a", kShape, kBatch, absl::StrCat("id", static_cast<int>(with)));
    request.normalize_with = with;
    request.given = {.count = 4, .mean = {1, 2}, .m2 = {4, 16}};
    request.update = Update::kRunning;
    request.return_batch_moments = true;
    request.guard.expected_generation = session_->Snapshot()->generation;
    const auto first = Run(request);
    ASSERT_TRUE(first.ok()) << first.status();
    ASSERT_TRUE(Run(MakeForward("a", kShape, kOtherBatch)).ok());
    ASSERT_TRUE(SetParameters(*session_, {}, {2, 3}, {4, static_cast<float>(with)}).ok());
    ASSERT_TRUE(SetMode(*session_, {}, Mode::kTrain).ok());
    const auto before = session_->Snapshot();
    const auto repeat = Run(request);
    ASSERT_TRUE(repeat.ok()) << repeat.status();
    EXPECT_EQ(Values(repeat->output), Values(first->output));
    EXPECT_EQ(repeat->generation, first->generation);
    EXPECT_EQ(repeat->snapshot_generation, first->snapshot_generation);
    EXPECT_EQ(repeat->num_batches_tracked, first->num_batches_tracked);
    EXPECT_EQ(repeat->normalized_with, with);
    EXPECT_EQ(repeat->update, Update::kRunning);
    EXPECT_EQ(repeat->batch_moments->m2, first->batch_moments->m2);
    EXPECT_EQ(session_->Snapshot(), before);
  }
}

TEST_F(ForwardCallTest, ASnapshotsStatisticsAreThoseOfThen) {
  ASSERT_TRUE(TakeSnapshot(*session_, {}, "fresh").ok());
  ASSERT_TRUE(Run(MakeForward("a", kShape, kBatch)).ok());
  ForwardRequest request = MakeForward("a", kShape, kBatch);
  request.normalize_with = NormalizedWith::kSnapshot;
  request.snapshot = "fresh";
  request.update = Update::kNone;
  request.return_normalization = true;
  const auto reply = Run(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->normalized_with, NormalizedWith::kSnapshot);
  EXPECT_EQ(reply->saved->normalization->mean, std::vector<double>({0, 0}));
  EXPECT_FALSE(reply->saved->from_batch);
  EXPECT_NEAR(Values(reply->output)[2], 30, 1e-3);
}

TEST_F(ForwardCallTest, ABlendWeighsMeansAndVariances) {
  ASSERT_TRUE(TakeSnapshot(*session_, {}, "fresh").ok());
  ForwardRequest request = MakeForward("a", kShape, kBatch);
  request.normalize_with = NormalizedWith::kBlend;
  request.snapshot = "fresh";
  request.batch_weight = 0.25;
  request.return_batch_moments = true;
  const auto reply = Run(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->normalized_with, NormalizedWith::kBlend);
  EXPECT_EQ(reply->update, Update::kRunning);
  // Mean 2.5 and variance 1.25 in the batch, 0 and 1 in the snapshot.
  EXPECT_NEAR(Values(reply->output)[0], (1 - 0.625) / std::sqrt(0.75 + 0.3125 + 1e-5), 1e-6);
  EXPECT_DOUBLE_EQ(reply->batch_moments->mean[0], 2.5);
  EXPECT_DOUBLE_EQ(session_->Snapshot()->running->mean[0], 0.1 * 2.5) << "what is folded in is the batch";
}

TEST_F(ForwardCallTest, ABlendOfNoneOfTheBatchIsTheSnapshotBitForBit) {
  ASSERT_TRUE(TakeSnapshot(*session_, {}, "fresh").ok());
  ForwardRequest request = MakeForward("a", {2, 2, 1}, {std::numeric_limits<float>::infinity(), 2, 3, 4});
  request.snapshot = "fresh";
  request.update = Update::kNone;
  request.batch_weight = 0;
  std::vector<std::vector<float>> outputs;
  for (const NormalizedWith with : {NormalizedWith::kSnapshot, NormalizedWith::kBlend}) {
    request.normalize_with = with;
    const auto reply = Run(request);
    ASSERT_TRUE(reply.ok()) << reply.status();
    outputs.push_back(Values(reply->output));
  }
  EXPECT_EQ(outputs[0], outputs[1]);
}

TEST_F(ForwardCallTest, ARepeatWithASnapshotThatIsGoneIsTheFirstAnswer) {
  for (const NormalizedWith with : {NormalizedWith::kSnapshot, NormalizedWith::kBlend}) {
    ASSERT_TRUE(TakeSnapshot(*session_, {}, "s").ok());
    ForwardRequest request = MakeForward("a", kShape, kBatch, absl::StrCat("id", static_cast<int>(with)));
    request.normalize_with = with;
    request.snapshot = "s";
    const auto first = Run(request);
    ASSERT_TRUE(first.ok()) << first.status();
    ASSERT_TRUE(DeleteSnapshot(*session_, {}, "s").ok());
    ASSERT_TRUE(Run(MakeForward("a", kShape, kOtherBatch)).ok());
    const auto repeat = Run(request);
    ASSERT_TRUE(repeat.ok()) << repeat.status();
    EXPECT_EQ(Values(repeat->output), Values(first->output));
    EXPECT_EQ(repeat->generation, first->generation);
    request.batch_weight = 0.9;
    EXPECT_THAT(Run(request).status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
  }
}

TEST_F(ForwardCallTest, SnapshotsAndBlendsThatCannotBeAreRefusedByName) {
  ASSERT_TRUE(TakeSnapshot(*session_, {}, "s").ok());
  ASSERT_TRUE(
      Create(registry_, {.name = "untracked", .config = {.num_features = 2, .track_running_stats = false}}).ok());
  ASSERT_TRUE(TakeSnapshot(**registry_.Find("untracked"), {}, "s").ok());
  const struct {
    NormalizedWith with;
    const char* name;
    const char* snapshot;
    double batch_weight;
    const char* text;
  } cases[] = {
      {NormalizedWith::kSnapshot, "a", "absent", 0, "\"absent\""},
      {NormalizedWith::kBlend, "a", "absent", 0.5, "\"absent\""},
      {NormalizedWith::kSnapshot, "a", "", 0, "snapshot"},
      {NormalizedWith::kBlend, "a", "no/name", 0.5, "blend.snapshot"},
      {NormalizedWith::kBlend, "a", "s", -0.1, "blend.batch_weight is -0.1"},
      {NormalizedWith::kBlend, "a", "s", 1.5, "blend.batch_weight is 1.5"},
      {NormalizedWith::kBlend, "a", "s", std::numeric_limits<double>::quiet_NaN(), "blend.batch_weight is nan"},
      {NormalizedWith::kBlend, "untracked", "s", 0.5, "blend"},
      {NormalizedWith::kSnapshot, "untracked", "s", 0, "snapshot"},
  };
  for (const auto& [with, name, snapshot, batch_weight, text] : cases) {
    ForwardRequest request = MakeForward(name, kShape, kBatch);
    request.normalize_with = with;
    request.snapshot = snapshot;
    request.batch_weight = batch_weight;
    request.update = Update::kNone;
    const Reply reply = Start(request);
    EXPECT_EQ(engine_.num_held(), 0u);
    ASSERT_TRUE(reply->has_value()) << text;
    EXPECT_FALSE((*reply)->ok()) << text;
    EXPECT_TRUE(absl::StrContains((*reply)->status().message(), text)) << (*reply)->status();
  }
  ForwardRequest request = MakeForward("a", kShape, kBatch);
  request.normalize_with = NormalizedWith::kBlend;
  request.snapshot = "s";
  request.return_saved_forward = true;
  EXPECT_THAT((*Start(request))->status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  request.return_saved_forward = false;
  request.input.dimensions = {1, 2};
  request.input.pieces[0] = request.input.pieces[0].subspan(0, 8);
  request.update = Update::kNone;
  EXPECT_THAT((*Start(request))->status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kBatchTooSmall));
}

TEST_F(ForwardCallTest, ARepeatIsARepeatEvenIfItWouldNotUpdateByNow) {
  const auto first = Run(MakeForward("a", kShape, kBatch, "id"));
  ASSERT_TRUE(SetMode(*session_, {}, Mode::kEval).ok());
  const auto repeat = Run(MakeForward("a", kShape, kBatch, "id"));
  EXPECT_EQ(repeat->update, Update::kRunning);
  EXPECT_EQ(Values(repeat->output), Values(first->output));
}

TEST_F(ForwardCallTest, AnIdWithAnotherPayloadIsRefused) {
  ASSERT_TRUE(Run(MakeForward("a", kShape, kBatch, "id")).ok());
  const auto before = session_->Snapshot();
  ForwardRequest with_moments = MakeForward("a", kShape, kBatch, "id");
  with_moments.return_batch_moments = true;
  for (const ForwardRequest& request :
       {MakeForward("a", kShape, kOtherBatch, "id"), MakeForward("a", {2, 2, 1, 2}, kBatch, "id"), with_moments}) {
    EXPECT_THAT(Run(request).status(), Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kRequestIdReused));
  }
  EXPECT_EQ(session_->Snapshot(), before);
}

TEST_F(ForwardCallTest, WhereTheBytesAreCutIsNoOtherPayload) {
  const auto first = Run(MakeForward("a", kShape, kBatch, "id"));
  ForwardRequest request = MakeForward("a", kShape, kBatch, "id");
  const auto whole = request.input.pieces[0];
  request.input.pieces = {whole.subspan(0, 5), whole.subspan(5, 1), whole.subspan(6)};
  EXPECT_EQ(Values(Run(request)->output), Values(first->output));
}

TEST_F(ForwardCallTest, TwoCopiesAtOnceCommitOnceAndGetTheSameAnswer) {
  ForwardRequest request = MakeForward("a", kShape, kBatch, "id");
  request.guard.expected_generation = 0;
  const Reply first = Start(request), second = Start(request);
  ASSERT_EQ(engine_.num_held(), 2u);
  engine_.Release();
  engine_.Release();
  ASSERT_TRUE((*second)->ok()) << (*second)->status();
  EXPECT_EQ((*first)->value().generation, 1);
  EXPECT_EQ((*second)->value().generation, 1);
  EXPECT_EQ(Values((*first)->value().output), Values((*second)->value().output));
  EXPECT_EQ(session_->Snapshot()->num_batches_tracked, 1);
}

TEST_F(ForwardCallTest, ACopyThatComputedWithAnotherStateIsComputedAgain) {
  ForwardRequest request = MakeForward("a", kShape, kBatch, "id");
  request.normalize_with = NormalizedWith::kRunning;
  request.update = Update::kRunning;
  const Reply first = Start(request);
  ASSERT_EQ(engine_.num_held(), 1u);
  // Another update comes between the two copies.
  const Reply other = Start(MakeForward("a", kShape, kOtherBatch));
  ReferenceEngine reference;
  std::optional<absl::StatusOr<ForwardReply>> quick;
  ForwardCall::Start(
      registry_, reference, MakeForward("a", kShape, kOtherBatch), [] { return false; },
      [&](absl::StatusOr<ForwardReply> result) { quick = std::move(result); });
  ASSERT_TRUE(quick->ok());
  const Reply second = Start(request);
  engine_.Release();  // first
  engine_.Release();  // other
  engine_.Release();  // second: finds that the first was committed
  ASSERT_FALSE(second->has_value());
  ASSERT_EQ(engine_.num_held(), 1u);
  engine_.Release();  // with the first's statistics
  EXPECT_EQ(Values((*second)->value().output), Values((*first)->value().output));
  EXPECT_EQ((*second)->value().generation, (*first)->value().generation);
  EXPECT_EQ(session_->Snapshot()->num_batches_tracked, 3);
}

TEST_F(ForwardCallTest, ARepeatWhoseVectorsWereDroppedSaysSoAndIsNotAppliedAgain) {
  // Each keeps its own running statistics: 16 bytes a channel, 4 MiB in all.
  ASSERT_TRUE(Create(registry_, {.name = "wide", .config = {.num_features = 20'000}}).ok());
  const std::vector<float> batch(2 * 20'000, 1.0f);
  const auto request = [&](int i) {
    ForwardRequest forward = MakeForward("wide", {2, 20'000}, batch, absl::StrCat(i));
    forward.normalize_with = NormalizedWith::kRunning;
    return forward;
  };
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(Run(request(i)).ok());
  EXPECT_THAT(Run(request(0)).status(), Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kAnswerDropped));
  EXPECT_TRUE(Run(request(39)).ok());
  EXPECT_EQ((*registry_.Find("wide"))->Snapshot()->num_batches_tracked, 40);
}

TEST_F(ForwardCallTest, ManyThreadsLoseNoBatch) {
  constexpr int kThreads = 8, kBatches = 50;
  ReferenceEngine reference;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kBatches; ++i) {
        ForwardCall::Start(
            registry_, reference, MakeForward("a", kShape, kBatch), [] { return false; },
            [](const absl::StatusOr<ForwardReply>& reply) { EXPECT_TRUE(reply.ok()); });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto state = session_->Snapshot();
  EXPECT_EQ(state->num_batches_tracked, kThreads * kBatches);
  EXPECT_EQ(state->generation, kThreads * kBatches);
  EXPECT_NEAR(state->running->mean[0], 2.5, 1e-12);
}

TEST_F(ForwardCallTest, AnUnknownSessionAndAnIllegalNameAreToldApart) {
  EXPECT_THAT(Run(MakeForward("b", kShape, kBatch)).status(),
              Fails(absl::StatusCode::kNotFound, ErrorReason::kSessionNotFound));
  EXPECT_THAT(Run(MakeForward("b/", kShape, kBatch)).status(),
              Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
}

TEST_F(ForwardCallTest, ASkippedBatchIsNormalisedAndChangesNothing) {
  ASSERT_TRUE(
      Create(registry_, {.name = "s", .config = {.num_features = 2, .non_finite_policy = NonFinitePolicy::kSkipUpdate}})
          .ok());
  std::vector<float> batch = kBatch;
  batch[2] = INFINITY;
  const auto before = (*registry_.Find("s"))->Snapshot();
  const auto reply = Run(MakeForward("s", kShape, batch, "id"));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->update, Update::kNone);
  EXPECT_EQ(reply->generation, 0);
  EXPECT_TRUE(std::isnan(Values(reply->output)[2]));
  EXPECT_NEAR(Values(reply->output)[0], -1.5 / std::sqrt(1.25 + 1e-5), 1e-6);  // the other channel
  EXPECT_EQ((*registry_.Find("s"))->Snapshot(), before);
  EXPECT_EQ(Run(MakeForward("s", kShape, kBatch))->update, Update::kRunning);
}

TEST_F(ForwardCallTest, ShadowMomentsMergeBesideTheStateAtMostOnce) {
  ASSERT_TRUE(SetMode(*session_, {}, Mode::kShadow).ok());
  const auto before = session_->Snapshot();
  const auto first = Run(MakeForward("a", kShape, kBatch, "id"));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->update, Update::kShadow);
  EXPECT_EQ(first->normalized_with, NormalizedWith::kRunning);
  const auto again = Run(MakeForward("a", kShape, kBatch, "id"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(Values(again->output), Values(first->output));
  EXPECT_EQ(again->update, Update::kShadow);
  ASSERT_TRUE(Run(MakeForward("a", kShape, kOtherBatch)).ok());
  const SessionContent observed = session_->Observe();
  EXPECT_EQ(observed.state->generation, before->generation);
  EXPECT_EQ(observed.state->running, before->running);
  EXPECT_EQ(observed.observations.shadow->count, 8);
  EXPECT_DOUBLE_EQ(observed.observations.shadow->mean[0], (1 + 2 + 3 + 4 + 9 + 8 + 7 + 7) / 8.0);
  EXPECT_EQ(observed.observations.last_batch, nullptr);
  ASSERT_TRUE(SetMode(*session_, {}, Mode::kShadow).ok());
  EXPECT_EQ(session_->Observe().observations.shadow, nullptr);
}

TEST_F(ForwardCallTest, WithoutRunningStatisticsTheBatchIsUsedInEveryMode) {
  ASSERT_TRUE(Create(registry_, {.name = "u", .config = {.num_features = 2, .track_running_stats = false}}).ok());
  const auto session = *registry_.Find("u");
  const auto train = Run(MakeForward("u", kShape, kBatch));
  ASSERT_TRUE(train.ok()) << train.status();
  EXPECT_EQ(train->update, Update::kNone);
  EXPECT_EQ(train->generation, 0);
  ForwardRequest eval = MakeForward("u", kShape, kBatch);
  eval.mode = Mode::kEval;
  EXPECT_EQ(Values(Run(eval)->output), Values(train->output));
  ForwardRequest running = MakeForward("u", kShape, kBatch);
  running.normalize_with = NormalizedWith::kRunning;
  EXPECT_THAT(Run(running).status(), Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kNotTracked));
  ForwardRequest update = MakeForward("u", kShape, kBatch);
  update.update = Update::kRunning;
  EXPECT_THAT(Run(update).status(), Fails(absl::StatusCode::kFailedPrecondition, ErrorReason::kNotTracked));
}

TEST_F(ForwardCallTest, ChannelsInTheOtherPlaceAreNamedWithTheLayoutThatFits) {
  ForwardRequest request = MakeForward("a", {2, 2, 2}, kBatch);
  request.input.dimensions = {2, 2, 2};
  request.input.layout = Layout::kChannelsLast;
  EXPECT_TRUE(Run(request).ok());
  ForwardRequest wrong = MakeForward("a", {2, 4, 1}, kBatch);
  wrong.input.dimensions = {1, 4, 2};
  const absl::Status status = Run(wrong).status();
  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("set layout CHANNELS_LAST"));
}

TEST_F(ForwardCallTest, ANonFiniteValueIsFoundWhereItIsInEitherLayout) {
  ForwardRequest request = MakeForward("a", {2, 2, 2}, {1, 2, 3, 4, 5, 6, NAN, 8});
  request.input.layout = Layout::kChannelsLast;  // [n][s][c]: sample 1, position 1, channel 0
  const absl::Status status = Run(request).status();
  EXPECT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite));
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("channel 0 is nan at sample 1, position 1"));
}

}  // namespace
}  // namespace normserve
