// Moments in and out: what is observed of sessions and models, through the wire, bad input and restarts.
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/durable_server.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

v1::Moments MakeMoments(int64_t count, std::vector<double> mean, std::vector<double> m2) {
  v1::Moments moments;
  moments.set_count(count);
  moments.mutable_mean()->Add(mean.begin(), mean.end());
  moments.mutable_m2()->Add(m2.begin(), m2.end());
  return moments;
}

void AddLayer(v1::ObserveRequest& request, const std::string& layer, const v1::Moments& moments) {
  v1::LayerMoments& added = *request.mutable_layers()->add_layers();
  added.set_layer(layer);
  *added.mutable_moments() = moments;
}

v1::ObserveRequest Observation(const std::string& name, const v1::Moments& moments, const std::string& part = "") {
  v1::ObserveRequest request;
  request.set_name(name);
  *request.mutable_moments() = moments;
  request.set_part_id(part);
  return request;
}

v1::GetMomentsReply MomentsOf(ServerProcess& server, const std::string& name,
                              v1::MomentsSource source = v1::MOMENTS_SOURCE_UNSPECIFIED) {
  v1::GetMomentsRequest request;
  request.set_name(name);
  request.set_source(source);
  return MustCall(server, &Stub::GetMoments, request);
}

class PopulationTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_FALSE(server_.address().empty()); }

  ServerProcess server_;
  TestClient client_{server_.stub()};
  const v1::Moments good_ = MakeMoments(4, {1, 2}, {3, 4});
};

TEST_F(PopulationTest, AModelObservesItsLayersTogetherOrNotAtAll) {
  for (const char* layer : {"a", "b", "c"}) client_.Create(absl::StrCat("net/", layer), 2);
  v1::ObserveRequest request;
  request.set_name("net/");
  AddLayer(request, "a", good_);
  AddLayer(request, "c", MakeMoments(2, {0, 0}, {1, 1}));
  request.set_request_id("once");
  for (int repeat = 0; repeat < 2; ++repeat) {
    const v1::ObserveReply reply = MustCall(server_, &Stub::Observe, request);
    ASSERT_EQ(reply.sessions_size(), 2);
    EXPECT_EQ(reply.sessions(1).name(), "net/c");
    EXPECT_EQ(reply.sessions(1).moments().count(), 2);
    EXPECT_EQ(reply.sessions(1).generation(), 0);
  }
  request.set_request_id("");
  request.mutable_layers()->mutable_layers(1)->mutable_moments()->set_m2(0, -1);
  v1::ObserveReply refused;
  EXPECT_THAT(Call(server_, &Stub::Observe, request, &refused), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  std::vector<int64_t> counts;
  const v1::GetMomentsReply observed = MomentsOf(server_, "net/");
  for (const auto& session : observed.sessions()) counts.push_back(session.moments().count());
  EXPECT_THAT(counts, ElementsAre(4, 0, 2));

  v1::ObserveRequest reset;
  reset.set_name("net/");
  reset.set_reset(true);
  EXPECT_EQ(MustCall(server_, &Stub::Observe, reset).sessions_size(), 3);
  const v1::GetMomentsReply forgotten = MomentsOf(server_, "net/");
  for (const auto& session : forgotten.sessions()) EXPECT_EQ(session.moments().mean_size(), 0);
}

TEST_F(PopulationTest, ObservingLeavesTheStateAndItsGuardsHold) {
  client_.Create("a", 2);
  const std::string before = client_.StateOf("a");
  MustCall(server_, &Stub::Observe, Observation("a", good_));
  EXPECT_EQ(client_.StateOf("a"), before);
  v1::ObserveRequest guarded = Observation("a", good_);
  guarded.set_expected_generation(7);
  v1::ObserveReply reply;
  EXPECT_THAT(Call(server_, &Stub::Observe, guarded, &reply), Fails(StatusCode::ABORTED, "GENERATION_MISMATCH"));
  guarded.set_dry_run(true);
  EXPECT_THAT(Call(server_, &Stub::Observe, guarded, &reply), Fails(StatusCode::ABORTED, "GENERATION_MISMATCH"));
  guarded.set_expected_generation(0);
  const v1::Moments tried = MustCall(server_, &Stub::Observe, guarded).sessions(0).moments();
  EXPECT_EQ(tried.count(), 8);
  EXPECT_EQ(tried.mean(1), 2);
  EXPECT_EQ(MomentsOf(server_, "a").sessions(0).moments().count(), 4);
}

// Told of moments, known of batches; of all together only while all of it is known.
TEST_F(PopulationTest, WhatIsObservedKnowsItsSamples) {
  client_.Create("a", 2);
  v1::Moments told = good_;
  told.set_num_samples(2);
  MustCall(server_, &Stub::Observe, Observation("a", told, "part"));
  v1::ObserveRequest batch;
  batch.set_name("a");
  *batch.mutable_batch() = MakeForward("a", {3, 2, 5}, SomeValues(30)).input();
  MustCall(server_, &Stub::Observe, batch);
  EXPECT_EQ(MomentsOf(server_, "a").sessions(0).moments().num_samples(), 5);
  // The same data, whoever knows how many samples they are of.
  EXPECT_EQ(MustCall(server_, &Stub::Observe, Observation("a", good_, "part")).sessions(0).moments().count(), 19);
  v1::ObserveRequest unknown = Observation("a", good_);
  unknown.set_dry_run(true);
  EXPECT_EQ(MustCall(server_, &Stub::Observe, unknown).sessions(0).moments().num_samples(), 0);

  v1::ForwardRequest forward = MakeForward("a", {3, 2, 5}, SomeValues(30));
  forward.set_return_batch_moments(true);
  forward.set_mode(v1::MODE_SHADOW);
  EXPECT_EQ(MustCall(server_, &Stub::Forward, forward).batch_moments().num_samples(), 3);
  MustCall(server_, &Stub::Forward, forward);
  EXPECT_EQ(MomentsOf(server_, "a", v1::MOMENTS_SOURCE_SHADOW).sessions(0).moments().num_samples(), 6);
}

TEST_F(PopulationTest, TheServerTakesTheMomentsOfABatchAsATrainingForwardDoes) {
  client_.Create("a", 3);
  v1::ForwardRequest forward = MakeForward("a", {4, 3, 5}, SomeValues(60));
  MustCall(server_, &Stub::Forward, forward);
  v1::ObserveRequest request;
  request.set_name("a");
  *request.mutable_batch() = forward.input();
  MustCall(server_, &Stub::Observe, request);
  EXPECT_EQ(MomentsOf(server_, "a").sessions(0).moments().SerializeAsString(),
            MomentsOf(server_, "a", v1::MOMENTS_SOURCE_LAST_BATCH).sessions(0).moments().SerializeAsString());
}

TEST_F(PopulationTest, DataThatDoNotFitAreRefusedByName) {
  client_.Create("net/a", 2);
  v1::CreateSessionRequest untracked = Creation("untracked", 2);
  untracked.mutable_config()->set_track_running_stats(false);
  MustCall(server_, &Stub::CreateSession, untracked);
  EXPECT_EQ(MustCall(server_, &Stub::Observe, Observation("untracked", good_)).sessions(0).moments().count(), 4)
      << "observations need no running statistics";
  const double infinity = std::numeric_limits<double>::infinity();
  const auto of_samples = [this](int64_t num_samples) {
    v1::Moments moments = good_;
    moments.set_num_samples(num_samples);
    return moments;
  };
  v1::ObserveRequest nothing, model_moments = Observation("net/", good_), batch_of_model, twice, unknown, none,
                              guarded_model, long_part = Observation("net/a", good_, std::string(256, 'x'));
  nothing.set_name("net/a");
  batch_of_model.set_name("net/");
  *batch_of_model.mutable_batch() = MakeForward("", {2, 2}, SomeValues(4)).input();
  for (v1::ObserveRequest* request : {&twice, &unknown, &none, &guarded_model}) request->set_name("net/");
  AddLayer(twice, "a", good_), AddLayer(twice, "a", good_);
  AddLayer(unknown, "a", good_), AddLayer(unknown, "x", good_);
  none.mutable_layers();
  AddLayer(guarded_model, "a", good_);
  guarded_model.set_expected_uid("0123");
  v1::ObserveRequest layers_of_session = twice;
  layers_of_session.mutable_layers()->mutable_layers()->RemoveLast();
  layers_of_session.set_name("net/a");
  v1::ObserveRequest wide_batch = batch_of_model;
  wide_batch.set_name("net/a");
  *wide_batch.mutable_batch() = MakeForward("", {2, 3}, SomeValues(6)).input();
  const struct {
    v1::ObserveRequest request;
    const char* reason;
    const char* text;
  } cases[] = {
      {Observation("net/a", MakeMoments(0, {}, {})), "INVALID_FIELD", "moments.count is 0"},
      {Observation("net/a", MakeMoments(-3, {1, 2}, {3, 4})), "INVALID_FIELD", "moments.count is -3"},
      {Observation("net/a", MakeMoments(int64_t{1} << 60, {1, 2}, {3, 4})), "INVALID_FIELD", "up to 2^53"},
      {Observation("net/a", of_samples(-1)), "INVALID_FIELD", "moments.num_samples is -1"},
      {Observation("net/a", of_samples(5)), "INVALID_FIELD", "moments.num_samples is 5 and moments.count 4"},
      {Observation("net/a", MakeMoments(4, {1}, {3, 4})), "SHAPE_MISMATCH", "moments.mean has 1 values"},
      {Observation("net/a", MakeMoments(4, {1, 2}, {3, 4, 5})), "SHAPE_MISMATCH", "moments.m2 has 3 values"},
      {Observation("net/a", MakeMoments(4, {1, infinity}, {3, 4})), "NON_FINITE", "moments.mean[1] is inf"},
      {Observation("net/a", MakeMoments(4, {1, 2}, {3, -4})), "INVALID_FIELD", "moments.m2[1] is -4"},
      {Observation("net/a", MakeMoments(1, {1, 2}, {3, 4})), "INVALID_FIELD", "with count 1 it is 0"},
      {long_part, "INVALID_FIELD", "part_id is"},
      {Observation("net/a", good_, "\n"), "INVALID_FIELD", "printable ASCII"},
      {nothing, "INVALID_FIELD", "neither moments, layers nor batch"},
      {model_moments, "INVALID_FIELD", "send layers"},
      {layers_of_session, "INVALID_FIELD", "send moments"},
      {batch_of_model, "INVALID_FIELD", "a batch is of one layer"},
      {wide_batch, "SHAPE_MISMATCH", "batch has 3 channels"},
      {twice, "INVALID_FIELD", "\"a\" is there twice"},
      {unknown, "INVALID_FIELD", "no session \"net/x\""},
      {none, "INVALID_FIELD", "layers is empty"},
      {guarded_model, "INVALID_FIELD", "expected_uid goes with a single session"},
  };
  for (const auto& [request, reason, text] : cases) {
    v1::ObserveReply reply;
    const grpc::Status status = Call(server_, &Stub::Observe, request, &reply);
    EXPECT_THAT(status, Fails(StatusCode::INVALID_ARGUMENT, reason)) << text;
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }
  EXPECT_EQ(MomentsOf(server_, "net/a").sessions(0).moments().count(), 0);
  MustCall(server_, &Stub::Observe, Observation("net/a", MakeMoments(4, {1e300, 0}, {0, 0})));
  v1::ObserveReply reply;
  EXPECT_THAT(Call(server_, &Stub::Observe, Observation("net/a", MakeMoments(4, {-1e300, 0}, {0, 0})), &reply),
              Fails(StatusCode::INVALID_ARGUMENT, "NON_FINITE"));
  v1::GetMomentsRequest ranged;
  ranged.set_name("net/");
  ranged.mutable_channel_range()->set_first(1);
  v1::GetMomentsReply moments;
  EXPECT_THAT(Call(server_, &Stub::GetMoments, ranged, &moments), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  ranged.set_name("net/a");
  EXPECT_EQ(MustCall(server_, &Stub::GetMoments, ranged).sessions(0).moments().mean_size(), 1);
}

using ObservationDurabilityTest = DurabilityTest;

TEST_F(ObservationDurabilityTest, WhatWasObservedSurvivesAKillWithThePartsThatCount) {
  auto server = Start();
  MustCall(*server, &Stub::CreateSession, Creation("a", 2));
  v1::Moments good = MakeMoments(4, {1, 2}, {3, 4}), other = MakeMoments(3, {7, 8}, {1, 1});
  good.set_num_samples(2);
  other.set_num_samples(3);
  MustCall(*server, &Stub::Observe, Observation("a", good, "first"));
  MustCall(*server, &Stub::Observe, Observation("a", other, "second"));
  const std::string before = MomentsOf(*server, "a").SerializeAsString();
  Restart(server, SIGKILL);
  EXPECT_EQ(MomentsOf(*server, "a").SerializeAsString(), before);
  EXPECT_EQ(MomentsOf(*server, "a").sessions(0).moments().num_samples(), 5);
  EXPECT_EQ(MustCall(*server, &Stub::Observe, Observation("a", good, "first")).sessions(0).moments().count(), 7);
  v1::ObserveReply reply;
  EXPECT_THAT(Call(*server, &Stub::Observe, Observation("a", good, "second"), &reply),
              Fails(StatusCode::INVALID_ARGUMENT, "PART_CONFLICT"));
  v1::ObserveRequest reset;
  reset.set_name("a");
  reset.set_reset(true);
  MustCall(*server, &Stub::Observe, reset);
  Restart(server, SIGTERM);
  EXPECT_EQ(MomentsOf(*server, "a").sessions(0).moments().count(), 0);
}

// Statistics that were given, so that no batch was folded in here; data like them, then, after a reset, others.
TEST_F(ObservationDurabilityTest, WhatWasObservedBeforeAResetSurvivesAKillAndNamesAShift) {
  auto server = Start();
  v1::CreateSessionRequest creation = Creation("a", 2);
  for (const double mean : {1.0, 2.0}) {
    creation.mutable_statistics()->add_running_mean(mean);
    creation.mutable_statistics()->add_running_var(1);
  }
  MustCall(*server, &Stub::CreateSession, creation);
  v1::Moments reference = MakeMoments(4000, {1.01, 2.01}, {4000, 4000});
  reference.set_num_samples(1000);
  MustCall(*server, &Stub::Observe, Observation("a", reference));
  v1::ObserveRequest production = Observation("a", MakeMoments(4000, {3, 4}, {4000, 4000}));
  production.set_reset(true);
  MustCall(*server, &Stub::Observe, production);
  Restart(server, SIGKILL);
  EXPECT_EQ(MomentsOf(*server, "a", v1::MOMENTS_SOURCE_OBSERVED_BEFORE).sessions(0).moments().SerializeAsString(),
            reference.SerializeAsString());
  v1::DiagnoseRequest request;
  request.set_name("a");
  request.mutable_observed();
  const v1::Diagnosis diagnosis = MustCall(*server, &Stub::Diagnose, request).sessions(0);
  EXPECT_EQ(diagnosis.causes().rbegin()->cause(), v1::CAUSE_DATA_SHIFT) << diagnosis.DebugString();
  EXPECT_THAT(diagnosis.explanation(), HasSubstr("fit what was observed before the last reset, 4000 values a channel"));
}

TEST_F(ObservationDurabilityTest, ObservedMomentsThatAreGoneAreTold) {
  auto server = Start();
  MustCall(*server, &Stub::CreateSession, Creation("a", 2));
  MustCall(*server, &Stub::Observe, Observation("a", MakeMoments(4, {1, 2}, {3, 4})));
  server->Signal(SIGTERM);
  server->Wait();
  Sql(directory_.file("normserve.db"), "DELETE FROM current_vectors WHERE kind = 4");
  server = Start();
  v1::GetStatsReply stats;
  const grpc::Status status = GetStats(*server, "a", &stats);
  EXPECT_THAT(status, Fails(StatusCode::DATA_LOSS, "STORED_DATA_LOST"));
  EXPECT_THAT(status.error_message(), HasSubstr("observed moments"));
}

v1::MergeMomentsRequest MergeOf(const std::string& part, bool commit = false) {
  v1::MergeMomentsRequest request;
  request.set_name("a");
  request.set_merge_id("m");
  request.set_commit(commit);
  if (part.empty()) return request;
  v1::MomentsPart& added = *request.add_parts();
  added.set_id(part);
  *added.mutable_moments() = MakeMoments(4, {1, 2}, {3, 4});
  added.mutable_moments()->set_num_samples(2);
  return request;
}

TEST_F(ObservationDurabilityTest, ACollectionThatIsDamagedIsLostByItselfUntilItIsDropped) {
  for (const char* damage : {"UPDATE collected_parts SET record = x'00' WHERE part = 'one'",
                             "DELETE FROM collected_parts WHERE part = 'two'",
                             "UPDATE collected_parts SET part = 'three' WHERE part = 'two'"}) {
    ScratchDirectory scratch;
    const std::vector<std::string> flags = {"--data-dir", scratch.path()};
    {
      ServerProcess server(flags);
      MustCall(server, &Stub::CreateSession, Creation("a", 2));
      MustCall(server, &Stub::MergeMoments, MergeOf("one"));
      MustCall(server, &Stub::MergeMoments, MergeOf("two"));
    }
    Sql(scratch.file("normserve.db"), damage);
    for (int restart = 0; restart < 2; ++restart) {
      ServerProcess server(flags);
      v1::MergeMomentsReply reply;
      for (const auto& request : {MergeOf("four"), MergeOf("", /*commit=*/true)}) {
        EXPECT_THAT(Call(server, &Stub::MergeMoments, request, &reply),
                    Fails(StatusCode::DATA_LOSS, "STORED_DATA_LOST"))
            << damage;
      }
      // All else is there, and stays so with the damage known.
      MustCall(server, &Stub::Observe, Observation("a", MakeMoments(4, {1, 2}, {3, 4})));
      if (restart == 0) continue;
      v1::MergeMomentsRequest drop = MergeOf("");
      drop.set_drop(true);
      MustCall(server, &Stub::MergeMoments, drop);
      MustCall(server, &Stub::MergeMoments, MergeOf("one"));
    }
    for (int restart = 0; restart < 2; ++restart) {
      ServerProcess server(flags);
      const auto committed = MustCall(server, &Stub::MergeMoments, MergeOf("", /*commit=*/true)).sessions(0);
      EXPECT_EQ(committed.num_parts(), 1);
      EXPECT_EQ(committed.merged().num_samples(), 2) << "read back as a part, then as a result";
      v1::MergeMomentsRequest otherwise = MergeOf("", /*commit=*/true);
      otherwise.set_policy(v1::MERGE_POLICY_WEIGHTED);
      v1::MergeMomentsReply reply;
      EXPECT_THAT(Call(server, &Stub::MergeMoments, otherwise, &reply),
                  Fails(StatusCode::FAILED_PRECONDITION, "COLLECTION_COMMITTED"));
    }
  }
}

TEST_F(PopulationTest, DiagnoseGoesByWhatWasObservedOrByABatch) {
  client_.Create("net/a", 2);
  client_.Create("net/b", 2);
  MustCall(server_, &Stub::Observe, Observation("net/a", MakeMoments(400, {9, 2}, {4000, 4000})));
  v1::DiagnoseRequest request;
  request.set_name("net/");
  request.mutable_observed();
  const v1::DiagnoseReply by_observed = MustCall(server_, &Stub::Diagnose, request);
  for (const auto& session : by_observed.sessions()) {
    EXPECT_EQ(session.batch_count(), session.name() == "net/a" ? 400 : 0) << session.name();
  }
  request.set_name("net/a");
  *request.mutable_batch() = MakeForward("", {16, 2, 4}, SomeValues(128)).input();
  const v1::DiagnoseReply by_batch = MustCall(server_, &Stub::Diagnose, request);
  EXPECT_EQ(by_batch.sessions(0).batch_count(), 64);
  EXPECT_TRUE(by_batch.sessions(0).has_gap_rms());
  request.set_name("net/");
  v1::DiagnoseReply reply;
  EXPECT_THAT(Call(server_, &Stub::Diagnose, request, &reply), Fails(StatusCode::INVALID_ARGUMENT, "INVALID_FIELD"));
  request.set_name("net/a");
  *request.mutable_batch() = MakeForward("", {16, 3}, SomeValues(48)).input();
  EXPECT_THAT(Call(server_, &Stub::Diagnose, request, &reply), Fails(StatusCode::INVALID_ARGUMENT, "SHAPE_MISMATCH"));
  request.mutable_batch()->clear_shape();
  EXPECT_THAT(Call(server_, &Stub::Diagnose, request, &reply), Fails(StatusCode::INVALID_ARGUMENT, "SHAPE_MISMATCH"));
}

}  // namespace
}  // namespace normserve::integration
