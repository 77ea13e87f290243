#include "server/rpc/config_message.h"

#include <gtest/gtest.h>

#include "tests/unit/server/status_matchers.h"

namespace normserve {
namespace {

TEST(ReadConfig, NothingButChannelsIsPyTorchs) {
  v1::SessionConfig message;
  message.set_num_features(3);
  EXPECT_EQ(*ReadConfig(message), SessionConfig{.num_features = 3});
}

TEST(ReadConfig, AConventionSetsDefaultsAndAFieldWins) {
  v1::SessionConfig message;
  message.set_num_features(3);
  message.set_convention(v1::CONVENTION_KERAS);
  SessionConfig expected{.num_features = 3, .epsilon = 1e-3, .momentum = 0.01};
  expected.running_variance = RunningVariance::kBiased;
  expected.convention = Convention::kKeras;
  EXPECT_EQ(*ReadConfig(message), expected);
  message.set_epsilon(0);
  message.set_momentum(0);
  message.set_running_variance(v1::RUNNING_VARIANCE_UNBIASED);
  expected.epsilon = expected.momentum = 0;
  expected.running_variance = RunningVariance::kUnbiased;
  EXPECT_EQ(*ReadConfig(message), expected);
  EXPECT_EQ(ConventionDefaults(Convention::kFlax).momentum, 0.01);
  EXPECT_EQ(ConventionDefaults(Convention::kFlax).epsilon, 1e-5);
  EXPECT_EQ(ConventionDefaults(Convention::kOnnx).momentum, 0.1);
  EXPECT_EQ(ConventionDefaults(Convention::kOnnx).running_variance, RunningVariance::kBiased);
}

TEST(WriteConfig, WritesEveryDefaultOutAndIsReadBackAsTheSame) {
  for (Convention convention : {Convention::kPyTorch, Convention::kKeras, Convention::kFlax, Convention::kOnnx}) {
    for (Averaging averaging : {Averaging::kExponential, Averaging::kCumulative, Averaging::kZeroDebiased}) {
      SessionConfig config = ConventionDefaults(convention);
      config.num_features = 7;
      config.averaging = averaging;
      config.affine = convention == Convention::kKeras;
      config.track_running_stats = convention == Convention::kOnnx;
      config.non_finite_policy =
          convention == Convention::kFlax ? NonFinitePolicy::kSkipUpdate : NonFinitePolicy::kReject;
      v1::SessionConfig message;
      WriteConfig(config, message);
      EXPECT_TRUE(message.has_epsilon() && message.has_affine() && message.has_track_running_stats());
      EXPECT_NE(message.running_variance(), v1::RUNNING_VARIANCE_UNSPECIFIED);
      EXPECT_NE(message.averaging_case(), v1::SessionConfig::AVERAGING_NOT_SET);
      EXPECT_EQ(*ReadConfig(message), config);
    }
  }
}

TEST(ReadConfig, UnknownEnumValuesAreNamed) {
  for (int field = 0; field < 3; ++field) {
    v1::SessionConfig message;
    if (field == 0) message.set_convention(static_cast<v1::Convention>(5));
    if (field == 1) message.set_running_variance(static_cast<v1::RunningVariance>(3));
    if (field == 2) message.set_non_finite_policy(static_cast<v1::NonFinitePolicy>(-1));
    const absl::Status status = ReadConfig(message).status();
    ASSERT_THAT(status, Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
    const char* const names[] = {"config.convention", "config.running_variance", "config.non_finite_policy"};
    EXPECT_EQ(GetErrorDetails(status)->metadata.at("field"), names[field]);
  }
}

TEST(CheckConfig, ZeroDebiasedNeedsAMomentumAboveZero) {
  for (double momentum : {0.0, -0.1, 1.5}) {
    EXPECT_THAT(CheckConfig({.num_features = 1, .averaging = Averaging::kZeroDebiased, .momentum = momentum}, 10),
                Fails(absl::StatusCode::kInvalidArgument, ErrorReason::kInvalidField));
  }
  EXPECT_TRUE(CheckConfig({.num_features = 1, .averaging = Averaging::kZeroDebiased, .momentum = 1}, 10).ok());
}

}  // namespace
}  // namespace normserve
