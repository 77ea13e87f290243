#include "server/rpc/grpc_status.h"

#include <string>

#include "kernels/error_reason.h"
#include "normserve/v1/error_details.pb.h"

namespace normserve {
namespace {

constexpr char kDomain[] = "normserve";
// Limits are freed by other requests ending or by an operator: soon enough for the first, not a storm for the second.
constexpr int64_t kRetryDelaySeconds = 1;

// As packed by every gRPC library, whose type these messages are wire compatible with.
void AddDetail(v1::StatusDetails& details, const char* type, const google::protobuf::Message& message) {
  google::protobuf::Any* any = details.add_details();
  any->set_type_url(std::string("type.googleapis.com/google.rpc.") + type);
  message.SerializeToString(any->mutable_value());
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  v1::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  if (const auto reason = GetErrorDetails(status); reason.has_value()) {
    v1::ErrorInfo info;
    info.set_reason(std::string(ErrorReasonName(reason->reason)));
    info.set_domain(kDomain);
    for (const auto& [key, value] : reason->metadata) (*info.mutable_metadata())[key] = value;
    AddDetail(details, "ErrorInfo", info);
  }
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    v1::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetryDelaySeconds);
    AddDetail(details, "RetryInfo", retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      details.SerializeAsString());
}

}  // namespace normserve
