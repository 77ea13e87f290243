// The server's side of one unary call: let in, answered once, logged if it failed.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/rpc/call_gate.h"

namespace normserve {

// INVALID_ARGUMENT if the metadata key normserve-session is there and is not `name`.
absl::Status CheckSessionMetadata(const grpc::CallbackServerContext& context, absl::string_view name);

// A call that is about to be answered.
struct AnsweredCall {
  absl::string_view method;  // outlives the program
  absl::string_view session;
  std::string peer;
  std::chrono::steady_clock::time_point start;
  int64_t request_bytes = 0;
  int64_t reply_bytes = 0;  // of what was sent
};
// Tells `observer` (null: nobody), and the log where the call failed: the server's trouble as a warning, a client's
// mistake for those who debug.
void ReportCall(CallObserver* observer, const AnsweredCall& call, const absl::Status& status);

// Deletes itself when gRPC is done with the call, reply sent. Until then it counts as a call in work.
class UnaryCall final : public grpc::ServerUnaryReactor {
 public:
  // `method` outlives the program; `request` is looked at now, `reply` when the call is answered.
  UnaryCall(grpc::CallbackServerContext* context, absl::string_view method, const grpc::ByteBuffer& request,
            grpc::ByteBuffer& reply)
      : context_(context), method_(method), request_bytes_(static_cast<int64_t>(request.Length())), reply_(reply) {}

  // Passes the gate. UNAVAILABLE (DRAINING).
  absl::Status Enter(CallGate& gate);

  // Keeps bytes counted until gRPC is done with the call.
  void Hold(CallGate::Pass bytes) { bytes_.push_back(std::move(bytes)); }

  // INVALID_ARGUMENT if the metadata key normserve-session is there and is not `name`. Remembers the name for the log.
  absl::Status CheckSession(absl::string_view name);

  // Whether the caller has gone away or its deadline has passed. Any thread, until Answer.
  bool IsCancelled() const;

  // Ends the call. The reply, if `status` is OK, has been written. Once, from any thread; the call may be gone after.
  void Answer(const absl::Status& status);

 private:
  void OnCancel() override { is_cancelled_.store(true, std::memory_order_relaxed); }
  void OnDone() override { delete this; }

  grpc::CallbackServerContext* const context_;
  const absl::string_view method_;
  const int64_t request_bytes_;
  grpc::ByteBuffer& reply_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  CallObserver* observer_ = nullptr;  // the gate's
  std::string session_;
  CallGate::Pass pass_;
  std::vector<CallGate::Pass> bytes_;
  std::atomic<bool> is_cancelled_{false};
};

}  // namespace normserve
