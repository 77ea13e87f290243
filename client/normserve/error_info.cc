#include "normserve/error_info.h"

#include "absl/strings/cord.h"
#include "normserve/v1/error_details.pb.h"

namespace normserve::client {
namespace {

constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// The payload of `status` under `url` as a Message; nothing if there is none or it does not parse.
template <typename Message>
std::optional<Message> ReadPayload(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  Message message;
  if (!payload.has_value() || !message.ParseFromString(std::string(*payload))) return std::nullopt;
  return message;
}

}  // namespace

std::optional<ErrorInfo> GetErrorInfo(const absl::Status& status) {
  const auto message = ReadPayload<v1::ErrorInfo>(status, kErrorInfoUrl);
  if (!message.has_value()) return std::nullopt;
  ErrorInfo info{.reason = message->reason()};
  for (const auto& [key, value] : message->metadata()) info.metadata[key] = value;
  return info;
}

std::optional<absl::Duration> GetRetryDelay(const absl::Status& status) {
  const auto message = ReadPayload<v1::RetryInfo>(status, kRetryInfoUrl);
  if (!message.has_value()) return std::nullopt;
  return absl::Seconds(message->retry_delay().seconds()) + absl::Nanoseconds(message->retry_delay().nanos());
}

void SetErrorInfo(const ErrorInfo& info, absl::Status& status) {
  v1::ErrorInfo message;
  message.set_reason(info.reason);
  message.set_domain("normserve");
  for (const auto& [key, value] : info.metadata) (*message.mutable_metadata())[key] = value;
  status.SetPayload(kErrorInfoUrl, absl::Cord(message.SerializeAsString()));
}

void SetRetryDelay(absl::Duration delay, absl::Status& status) {
  v1::RetryInfo message;
  absl::Duration rest;
  message.mutable_retry_delay()->set_seconds(absl::IDivDuration(delay, absl::Seconds(1), &rest));
  message.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  status.SetPayload(kRetryInfoUrl, absl::Cord(message.SerializeAsString()));
}

}  // namespace normserve::client
