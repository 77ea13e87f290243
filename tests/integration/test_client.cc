#include "tests/integration/test_client.h"

#include <gtest/gtest.h>

#include <cstring>

#include "normserve/v1/error_details.pb.h"

namespace normserve::integration {
namespace {

v1::ErrorInfo InfoOf(const grpc::Status& status) {
  v1::StatusDetails details;
  v1::ErrorInfo info;
  if (!details.ParseFromString(status.error_details())) return info;
  for (const auto& detail : details.details()) {
    if (detail.type_url() == "type.googleapis.com/google.rpc.ErrorInfo") info.ParseFromString(detail.value());
  }
  return info;
}

}  // namespace

std::string ReasonOf(const grpc::Status& status) { return InfoOf(status).reason(); }

std::string MetadataOf(const grpc::Status& status, const std::string& key) {
  const v1::ErrorInfo info = InfoOf(status);
  const auto found = info.metadata().find(key);
  return found == info.metadata().end() ? "" : found->second;
}

std::vector<float> SomeValues(int64_t count, uint32_t seed) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) {
    seed = seed * 1664525 + 1013904223;
    value = static_cast<float>(seed >> 8) / static_cast<float>(1 << 22) - 1;
  }
  return values;
}

v1::ForwardRequest MakeForward(const std::string& name, const std::vector<int64_t>& shape,
                               const std::vector<float>& values, const std::string& request_id) {
  v1::ForwardRequest request;
  request.set_name(name);
  request.set_request_id(request_id);
  request.mutable_input()->mutable_shape()->Add(shape.begin(), shape.end());
  request.mutable_input()->set_data(values.data(), values.size() * sizeof(float));
  return request;
}

std::vector<float> Values(const v1::Tensor& tensor) {
  std::vector<float> values(tensor.data().size() / sizeof(float));
  std::memcpy(values.data(), tensor.data().data(), tensor.data().size());
  return values;
}

v1::Session TestClient::Create(const std::string& name, int64_t num_features) {
  v1::CreateSessionRequest request;
  request.set_name(name);
  request.mutable_config()->set_num_features(num_features);
  grpc::ClientContext context;
  v1::Session session;
  EXPECT_THAT(stub_.CreateSession(&context, request, &session), Succeeds());
  return session;
}

grpc::Status TestClient::Forward(const v1::ForwardRequest& request, v1::ForwardReply* reply) {
  grpc::ClientContext context;
  v1::ForwardReply ignored;
  return stub_.Forward(&context, request, reply == nullptr ? &ignored : reply);
}

grpc::Status TestClient::SetMode(const std::string& name, v1::Mode mode, const std::string& request_id) {
  v1::SetModeRequest request;
  request.set_name(name);
  request.set_mode(mode);
  request.set_request_id(request_id);
  grpc::ClientContext context;
  v1::SetModeReply reply;
  return stub_.SetMode(&context, request, &reply);
}

std::string TestClient::StateOf(const std::string& name) { return Get(name).SerializeAsString(); }

v1::Session TestClient::Get(const std::string& name) {
  v1::GetSessionRequest request;
  request.set_name(name);
  request.set_view(v1::SESSION_VIEW_FULL);
  grpc::ClientContext context;
  v1::Session session;
  EXPECT_THAT(stub_.GetSession(&context, request, &session), Succeeds());
  return session;
}

}  // namespace normserve::integration
