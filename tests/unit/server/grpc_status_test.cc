#include "server/rpc/grpc_status.h"

#include <gtest/gtest.h>

#include "kernels/error_reason.h"
#include "normserve/v1/error_details.pb.h"

namespace normserve {
namespace {

TEST(GrpcStatus, CarriesReasonAndMetadata) {
  const grpc::Status status = ToGrpcStatus(MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch,
                                                     "too wide", {{"field", "input.shape"}}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "too wide");
  v1::StatusDetails details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), 3);
  EXPECT_EQ(details.message(), "too wide");
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.ErrorInfo");
  v1::ErrorInfo info;
  ASSERT_TRUE(info.ParseFromString(details.details(0).value()));
  EXPECT_EQ(info.reason(), "SHAPE_MISMATCH");
  EXPECT_EQ(info.domain(), "normserve");
  EXPECT_EQ(info.metadata().at("field"), "input.shape");
}

TEST(GrpcStatus, ResourceExhaustedCarriesRetryInfo) {
  const grpc::Status status =
      ToGrpcStatus(MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached, "full"));
  v1::StatusDetails details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  ASSERT_EQ(details.details_size(), 2);
  EXPECT_EQ(details.details(1).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  v1::RetryInfo retry;
  ASSERT_TRUE(retry.ParseFromString(details.details(1).value()));
  EXPECT_GT(retry.retry_delay().seconds(), 0);
}

TEST(GrpcStatus, EveryReasonIsOneOfTheContract) {
  for (int i = 0; i <= static_cast<int>(ErrorReason::kCollectionCommitted); ++i) {
    const std::string name = "ERROR_REASON_" + std::string(ErrorReasonName(static_cast<ErrorReason>(i)));
    EXPECT_NE(v1::ErrorReason_descriptor()->FindValueByName(name), nullptr) << name;
  }
  EXPECT_EQ(v1::ErrorReason_descriptor()->value_count(), static_cast<int>(ErrorReason::kCollectionCommitted) + 2);
}

TEST(GrpcStatus, OkStaysOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok()); }

}  // namespace
}  // namespace normserve
