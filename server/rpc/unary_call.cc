#include "server/rpc/unary_call.h"

#include <spdlog/spdlog.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/rpc/grpc_status.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

constexpr char kSessionMetadataKey[] = "normserve-session";

// What an operator should see without asking for it: the server's trouble, not a client's mistake, nor what the
// operator has just ordered.
bool IsServersTrouble(const absl::Status& status) {
  const auto details = GetErrorDetails(status);
  if (details.has_value() && details->reason == ErrorReason::kDraining) return false;
  const absl::StatusCode code = status.code();
  return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss || code == absl::StatusCode::kUnavailable ||
         code == absl::StatusCode::kResourceExhausted;
}

}  // namespace

absl::Status UnaryCall::Enter(CallGate& gate) {
  observer_ = gate.observer();
  auto pass = gate.Enter();
  if (!pass.ok()) return pass.status();
  pass_ = *std::move(pass);
  return absl::OkStatus();
}

absl::Status UnaryCall::CheckSession(absl::string_view name) {
  session_ = std::string(name);
  return CheckSessionMetadata(*context_, name);
}

absl::Status CheckSessionMetadata(const grpc::CallbackServerContext& context, absl::string_view name) {
  const auto& metadata = context.client_metadata();
  const auto [first, last] = metadata.equal_range(kSessionMetadataKey);
  for (auto entry = first; entry != last; ++entry) {
    const absl::string_view value(entry->second.data(), entry->second.size());
    if (value == name) continue;
    return FieldError(
        "name", absl::StrCat("metadata ", kSessionMetadataKey, " is \"", absl::CHexEscape(value), "\", name is \"",
                             absl::CHexEscape(name), "\": send them equal or leave the metadata out"));
  }
  return absl::OkStatus();
}

bool UnaryCall::IsCancelled() const {
  return is_cancelled_.load(std::memory_order_relaxed) || context_->IsCancelled() ||
         std::chrono::system_clock::now() >= context_->deadline();
}

void UnaryCall::Answer(const absl::Status& status) {
  if (!status.ok()) LogFailure(status);
  if (observer_ != nullptr) TellObserver(status);
  Finish(ToGrpcStatus(status));
}

void UnaryCall::TellObserver(const absl::Status& status) {
  observer_->CallEnded({.method = method_,
                        .code = status.code(),
                        .duration = absl::FromChrono(std::chrono::steady_clock::now() - start_),
                        .request_bytes = request_bytes_,
                        .reply_bytes = status.ok() && reply_.Valid() ? static_cast<int64_t>(reply_.Length()) : 0});
}

void UnaryCall::LogFailure(const absl::Status& status) const {
  const auto level = IsServersTrouble(status) ? spdlog::level::warn : spdlog::level::debug;
  if (!spdlog::should_log(level)) return;
  const double milliseconds =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  spdlog::log(level, "{} session=\"{}\" peer={} took={:.1f}ms: {}: {}", std::string(method_),
              absl::CHexEscape(session_), context_->peer(), milliseconds, absl::StatusCodeToString(status.code()),
              absl::CHexEscape(std::string(status.message())));
}

}  // namespace normserve
