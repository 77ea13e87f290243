#include "server/rpc/grpc_status.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
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

// A status travels in a header block of 8 KiB, twice: as text, a byte of which may take three, and in the details.
constexpr size_t kMaxMessageBytes = 1000;
constexpr size_t kMaxMetadataBytes = 300;

// Printable ASCII of at most `max_bytes`: what a client sent may be long and stand in the message.
std::string Shortened(absl::string_view text, size_t max_bytes) {
  std::string result(text.substr(0, max_bytes));
  for (char& c : result) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  if (text.size() > max_bytes) absl::StrAppend(&result, "... (", text.size(), " bytes)");
  return result;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = Shortened(status.message(), kMaxMessageBytes);
  v1::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(message);
  if (const auto reason = GetErrorDetails(status); reason.has_value()) {
    v1::ErrorInfo info;
    info.set_reason(std::string(ErrorReasonName(reason->reason)));
    info.set_domain(kDomain);
    for (const auto& [key, value] : reason->metadata) {
      (*info.mutable_metadata())[key] = Shortened(value, kMaxMetadataBytes);
    }
    AddDetail(details, "ErrorInfo", info);
  }
  if (status.code() == absl::StatusCode::kResourceExhausted) {
    v1::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(kRetryDelaySeconds);
    AddDetail(details, "RetryInfo", retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message, details.SerializeAsString());
}

}  // namespace normserve
