// Diagnose: what it says of layers whose trouble is known, of single ones and of a model.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_process.h"
#include "tests/integration/test_client.h"

namespace normserve::integration {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

class DiagnoseTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_FALSE(server_.address().empty()); }

  // [64, 4, 4] values of every channel.
  std::vector<float> Draw(double mean, double deviation) {
    std::normal_distribution<float> normal(static_cast<float>(mean), static_cast<float>(deviation));
    std::vector<float> values(64 * 4 * 4);
    for (float& value : values) value = normal(random_);
    return values;
  }
  void Train(const std::string& name, int batches, double mean = 0, double deviation = 1) {
    for (int i = 0; i < batches; ++i) {
      ASSERT_THAT(client_.Forward(MakeForward(name, {64, 4, 4}, Draw(mean, deviation))), Succeeds());
    }
  }

  grpc::Status Ask(const v1::DiagnoseRequest& request, v1::DiagnoseReply& reply) {
    grpc::ClientContext context;
    return server_.stub().Diagnose(&context, request, &reply);
  }
  v1::DiagnoseReply Ask(const std::string& name) {
    v1::DiagnoseRequest request;
    request.set_name(name);
    v1::DiagnoseReply reply;
    EXPECT_THAT(Ask(request, reply), Succeeds());
    return reply;
  }

  ServerProcess server_;
  TestClient client_{server_.stub()};
  std::mt19937 random_{7};
};

double ShareOf(const v1::Diagnosis& diagnosis, v1::Cause cause) {
  for (const auto& share : diagnosis.causes()) {
    if (share.cause() == cause) return share.share();
  }
  return 0;
}

TEST_F(DiagnoseTest, RanksTheLayersOfAModelWorstFirstAndChangesNothing) {
  for (const char* layer : {"fresh", "shifted", "sound", "young"}) client_.Create(absl::StrCat("net/", layer), 4);
  Train("net/sound", 200);
  Train("net/shifted", 200);
  Train("net/shifted", 1, 3, 2);
  Train("net/young", 1, 5, 0.5);
  const std::string before = client_.StateOf("net/sound");
  const v1::DiagnoseReply reply = Ask("net/");
  std::vector<std::string> names;
  for (const auto& session : reply.sessions()) names.push_back(session.name());
  EXPECT_THAT(names, ElementsAre("net/young", "net/shifted", "net/fresh", "net/sound"));
  EXPECT_EQ(client_.StateOf("net/sound"), before);

  const v1::Diagnosis& young = reply.sessions(0);
  EXPECT_EQ(young.verdict(), v1::VERDICT_TRAIN_EVAL_GAP);
  EXPECT_GT(ShareOf(young, v1::CAUSE_INITIALISATION), 0.9 * young.gap_rms());
  EXPECT_EQ(young.batch_count(), 256);
  const v1::Diagnosis& shifted = reply.sessions(1);
  EXPECT_EQ(shifted.verdict(), v1::VERDICT_TRAIN_EVAL_GAP);
  EXPECT_GT(ShareOf(shifted, v1::CAUSE_DATA_SHIFT), 0.9 * shifted.gap_rms());
  EXPECT_FALSE(shifted.advice().empty());
  EXPECT_EQ(reply.sessions(2).verdict(), v1::VERDICT_NEVER_UPDATED);
  EXPECT_EQ(reply.sessions(2).flagged_channels().at("NEVER_UPDATED"), 4);
  EXPECT_EQ(reply.sessions(3).verdict(), v1::VERDICT_HEALTHY);
}

TEST_F(DiagnoseTest, TheGapForetoldIsTheGapOfALaterBatch) {
  client_.Create("a", 4);
  Train("a", 5, 2, 3);
  const v1::Diagnosis diagnosis = Ask("a").sessions(0);
  double sum = 0;
  const std::vector<float> later = Draw(2, 3);
  std::vector<std::vector<float>> outputs;
  for (const v1::Mode mode : {v1::MODE_TRAIN, v1::MODE_EVAL}) {
    v1::ForwardRequest request = MakeForward("a", {64, 4, 4}, later);
    request.set_mode(mode);
    request.set_update(v1::UPDATE_NONE);
    v1::ForwardReply reply;
    ASSERT_THAT(client_.Forward(request, &reply), Succeeds());
    outputs.push_back(Values(reply.output()));
  }
  for (size_t i = 0; i < later.size(); ++i) sum += std::pow(outputs[1][i] - outputs[0][i], 2);
  const double measured = std::sqrt(sum / static_cast<double>(later.size()));
  EXPECT_GT(measured, 0.5);
  EXPECT_NEAR(diagnosis.gap_rms(), measured, 3 * diagnosis.sampling_noise());
}

TEST_F(DiagnoseTest, GivenMomentsAreTheEvidenceOfASessionOrOfLayers) {
  client_.Create("net/a", 2);
  client_.Create("net/b", 2);
  v1::Moments moments;
  moments.set_count(8);
  for (int c = 0; c < 2; ++c) moments.add_mean(0), moments.add_m2(8);
  v1::DiagnoseRequest request;
  request.set_name("net/a");
  *request.mutable_moments() = moments;
  request.set_return_channels(true);
  v1::DiagnoseReply reply;
  ASSERT_THAT(Ask(request, reply), Succeeds());
  EXPECT_EQ(reply.sessions(0).batch_count(), 8);
  EXPECT_EQ(reply.sessions(0).channel_gap_rms_size(), 2);
  EXPECT_NEAR(reply.sessions(0).gap_rms(), 0, 1e-12) << "mean 0 and variance 1, as a new session has";

  request.set_name("net/");
  request.clear_moments();
  v1::LayerMoments* layer = request.mutable_layers()->add_layers();
  layer->set_layer("b");
  *layer->mutable_moments() = moments;
  ASSERT_THAT(Ask(request, reply), Succeeds());
  for (const auto& session : reply.sessions()) {
    EXPECT_EQ(session.batch_count(), session.name() == "net/b" ? 8 : 0) << session.name();
  }
}

TEST_F(DiagnoseTest, EvidenceThatDoesNotFitIsRefusedByName) {
  client_.Create("net/a", 2);
  v1::Moments good;
  good.set_count(8);
  for (int c = 0; c < 2; ++c) good.add_mean(0), good.add_m2(8);
  v1::Moments none = good, short_mean = good, negative = good;
  none.set_count(0);
  short_mean.mutable_mean()->RemoveLast();
  negative.set_m2(1, -1);
  const auto of_session = [](const v1::Moments& moments) {
    v1::DiagnoseRequest request;
    request.set_name("net/a");
    *request.mutable_moments() = moments;
    return request;
  };
  const auto of_model = [&](std::vector<std::string> layers) {
    v1::DiagnoseRequest request;
    request.set_name("net/");
    for (const std::string& name : layers) {
      v1::LayerMoments* layer = request.mutable_layers()->add_layers();
      layer->set_layer(name);
      *layer->mutable_moments() = good;
    }
    return request;
  };
  v1::DiagnoseRequest moments_of_model = of_session(good), layers_of_session = of_model({"a"}),
                      samples = of_session(good);
  moments_of_model.set_name("net/");
  layers_of_session.set_name("net/a");
  samples.set_samples_per_batch(-1);
  v1::Moments of_many_samples = good;
  of_many_samples.set_num_samples(good.count() + 1);
  const struct {
    v1::DiagnoseRequest request;
    const char* reason;
    const char* text;
  } cases[] = {
      {of_session(none), "INVALID_FIELD", "moments.count is 0"},
      {of_session(short_mean), "SHAPE_MISMATCH", "moments.mean has 1 values"},
      {of_session(negative), "INVALID_FIELD", "moments.m2[1] is -1"},
      {of_session(of_many_samples), "INVALID_FIELD", "moments.num_samples is"},
      {moments_of_model, "INVALID_FIELD", "send layers"},
      {layers_of_session, "INVALID_FIELD", "send moments"},
      {of_model({"a", "a"}), "INVALID_FIELD", "\"a\" is there twice"},
      {of_model({"a", "x"}), "INVALID_FIELD", "there is no session \"net/x\""},
      {samples, "INVALID_FIELD", "samples_per_batch is -1"},
  };
  for (const auto& [request, reason, text] : cases) {
    v1::DiagnoseReply reply;
    const grpc::Status status = Ask(request, reply);
    EXPECT_THAT(status, Fails(StatusCode::INVALID_ARGUMENT, reason)) << text;
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }
}

}  // namespace
}  // namespace normserve::integration
