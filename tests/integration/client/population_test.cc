// Moments in and out by the C++ library, of a session and of a model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "normserve/client.h"
#include "normserve/error_info.h"
#include "tests/integration/server_process.h"

namespace normserve::client {
namespace {

using ::testing::ElementsAre;

class ClientPopulationTest : public testing::Test {
 protected:
  void SetUp() override {
    auto connected = Client::Connect(server_.address());
    ASSERT_TRUE(connected.ok()) << connected.status();
    client_.emplace(*std::move(connected));
    for (const char* name : {"net/a", "net/b"}) {
      ASSERT_TRUE(client_->CreateSession({.name = name, .config = {.num_features = 2}}).ok());
    }
  }

  static std::string ReasonOf(const absl::Status& status) {
    const auto info = GetErrorInfo(status);
    return info.has_value() ? info->reason : std::string(status.message());
  }

  integration::ServerProcess server_;
  std::optional<Client> client_;
  const Moments first_ = {.count = 2, .mean = {-1, 0}, .m2 = {2, 2}};
  const Moments second_ = {.count = 2, .mean = {1, 4}, .m2 = {2, 2}};
};

TEST_F(ClientPopulationTest, WhatIsObservedIsReadBack) {
  const BatchNorm bn = client_->Attach("net/a");
  ASSERT_TRUE(bn.Observe({.moments = first_}, {.part_id = "1"}).ok());
  const auto tried = bn.Observe({.moments = second_}, {.dry_run = true});
  ASSERT_TRUE(tried.ok() && tried->moments.has_value()) << tried.status();
  EXPECT_THAT(tried->moments->m2, ElementsAre(8, 20));
  const std::vector<float> values = {1, 2, 3, 4};
  const std::vector<int64_t> shape = {2, 2};
  const auto observed = bn.Observe({.batch = TensorView{shape, values}});
  ASSERT_TRUE(observed.ok()) << observed.status();
  EXPECT_EQ(observed->count, 4);
  EXPECT_THAT(bn.ReadMoments({.first_channel = 1})->moments.mean, ElementsAre(1.5));
  const Model model = client_->AttachModel("net");
  Moments of_one_sample = first_;
  of_one_sample.num_samples = 1;
  ASSERT_TRUE(model.Observe({.layers = {{"b", of_one_sample}}}).ok());
  EXPECT_EQ(model.ReadMoments()->at(1).moments.count, 2);
  EXPECT_EQ(model.ReadMoments()->at(1).moments.num_samples, 1);
  EXPECT_EQ(bn.Diagnose({.observed = true})->batch_count, 4);
  EXPECT_EQ(bn.Diagnose({.batch = TensorView{shape, values}})->batch_count, 2);
  EXPECT_EQ(bn.Observe({.moments = second_}, {.reset = true})->count, 2);
  EXPECT_EQ(bn.ReadMoments({.source = MomentsSource::kObservedBefore})->moments.count, 4);
  EXPECT_EQ(ReasonOf(bn.Observe({.moments = Moments{.count = 2, .mean = {0}, .m2 = {0}}}).status()), "SHAPE_MISMATCH");
}

TEST_F(ClientPopulationTest, PartsAreMergedAndBatchesCalibrated) {
  const BatchNorm bn = client_->Attach("net/a");
  ASSERT_TRUE(bn.Merge("m", {{.id = "1", .data = {.moments = first_}}}).ok());
  const auto begun = bn.Describe();
  ASSERT_TRUE(begun.ok() && begun->open_merges.size() == 1 && begun->open_calibrations.empty()) << begun.status();
  EXPECT_EQ(begun->open_merges[0].id, "m");
  EXPECT_EQ(begun->open_merges[0].num_parts, 1);
  EXPECT_EQ(begun->open_merges[0].count, 2);
  const auto merged = bn.Merge("m", {{.id = "2", .data = {.moments = second_}}}, {.commit = true});
  ASSERT_TRUE(merged.ok() && merged->merged.has_value()) << merged.status();
  EXPECT_THAT(merged->merged->mean, ElementsAre(0, 2));
  EXPECT_THAT(merged->variance_within, ElementsAre(1, 1));
  EXPECT_THAT(merged->variance_between, ElementsAre(1, 4));
  EXPECT_THAT(bn.Stats()->statistics.running_var, ElementsAre(8.0 / 3, 20.0 / 3));
  EXPECT_EQ(ReasonOf(bn.Merge("m", {{.id = "3", .data = {.moments = first_}}}).status()), "COLLECTION_COMMITTED");
  EXPECT_EQ(ReasonOf(bn.Merge("n", {}).status()), "COLLECTION_NOT_FOUND");

  const Model model = client_->AttachModel("net");
  ASSERT_TRUE(model.Calibrate("c", {.layers = {{"a", first_}, {"b", second_}}}, {.part_id = "1"}).ok());
  const auto calibrated = model.Calibrate("c", {.layers = {{"a", second_}}},
                                          {.part_id = "2", .estimator = Estimator::kAlgorithm2, .commit = true});
  ASSERT_TRUE(calibrated.ok()) << calibrated.status();
  ASSERT_EQ(calibrated->size(), 2u);
  EXPECT_EQ((*calibrated)[0].num_batches, 2);
  EXPECT_THAT((*calibrated)[0].after.running_var, ElementsAre(2, 2));
  EXPECT_THAT((*calibrated)[1].after.running_mean, ElementsAre(1, 4));
  EXPECT_EQ((*calibrated)[1].before.running_var, (std::vector<double>{1, 1}));
}

}  // namespace
}  // namespace normserve::client
