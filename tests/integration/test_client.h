// Sessions and batches as the tests write them.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <string>
#include <vector>

#include "normserve/v1/batch_norm_service.grpc.pb.h"

namespace normserve::integration {

// The reason for machines that came with `status`, "SHAPE_MISMATCH"; empty if there is none.
std::string ReasonOf(const grpc::Status& status);
// The value of `key` that came with it; empty if there is none.
std::string MetadataOf(const grpc::Status& status, const std::string& key);

MATCHER_P2(Fails, code, reason, "") {
  const grpc::Status& status = arg;
  *result_listener << status.error_code() << " " << ReasonOf(status) << ": " << status.error_message();
  return status.error_code() == code && ReasonOf(status) == reason;
}

MATCHER(Succeeds, "") {
  const grpc::Status& status = arg;
  *result_listener << status.error_code() << ": " << status.error_message();
  return status.ok();
}

// `count` values that no two channels share.
std::vector<float> SomeValues(int64_t count, uint32_t seed = 1);

v1::ForwardRequest MakeForward(const std::string& name, const std::vector<int64_t>& shape,
                               const std::vector<float>& values, const std::string& request_id = "");

std::vector<float> Values(const v1::Tensor& tensor);

// Calls as one-liners. A call that only sets the scene fails the test if it fails.
class TestClient {
 public:
  explicit TestClient(v1::BatchNormService::Stub& stub) : stub_(stub) {}

  v1::Session Create(const std::string& name, int64_t num_features);
  grpc::Status Forward(const v1::ForwardRequest& request, v1::ForwardReply* reply = nullptr);
  grpc::Status SetMode(const std::string& name, v1::Mode mode, const std::string& request_id = "");
  // Everything that the server tells of a session, serialised: equal bytes, equal state.
  std::string StateOf(const std::string& name);
  v1::Session Get(const std::string& name);

 private:
  v1::BatchNormService::Stub& stub_;
};

}  // namespace normserve::integration
