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

void ReportCall(CallObserver* observer, const AnsweredCall& call, const absl::Status& status) {
  const auto took = std::chrono::steady_clock::now() - call.start;
  if (observer != nullptr) {
    observer->CallEnded({.method = call.method,
                         .code = status.code(),
                         .duration = absl::FromChrono(took),
                         .request_bytes = call.request_bytes,
                         .reply_bytes = call.reply_bytes});
  }
  if (status.ok()) return;
  const auto level = IsServersTrouble(status) ? spdlog::level::warn : spdlog::level::debug;
  if (!spdlog::should_log(level)) return;
  const double milliseconds = std::chrono::duration<double, std::milli>(took).count();
  spdlog::log(level, "{} session=\"{}\" peer={} took={:.1f}ms: {}: {}", std::string(call.method),
              absl::CHexEscape(call.session), call.peer, milliseconds, absl::StatusCodeToString(status.code()),
              absl::CHexEscape(std::string(status.message())));
}

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

bool UnaryCall::IsCancelled() const {
  return is_cancelled_.load(std::memory_order_relaxed) || context_->IsCancelled() ||
         std::chrono::system_clock::now() >= context_->deadline();
}

void UnaryCall::Answer(const absl::Status& status) {
  ReportCall(observer_,
             {.method = method_,
              .session = session_,
              .peer = context_->peer(),
              .start = start_,
              .request_bytes = request_bytes_,
              .reply_bytes = status.ok() && reply_.Valid() ? static_cast<int64_t>(reply_.Length()) : 0},
             status);
  Finish(ToGrpcStatus(status));
}

}  // namespace normserve
