// The server's side of one ExportState: a summary, then a file in pieces.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/checkpoint_messages.h"
#include "server/session/session_registry.h"

namespace normserve {

// Writes the file as the caller takes it. The states that it is made of are kept until then, and count as bytes in
// work. Deletes itself when gRPC is done with it; until then it counts as a call in work.
class ExportCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  // `registry` and `gate` outlive the call.
  ExportCall(grpc::CallbackServerContext* context, SessionRegistry& registry, CallGate& gate)
      : context_(context), registry_(registry), gate_(gate) {}

  void Start(const grpc::ByteBuffer& request);

 private:
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

  // Ready to write the summary.
  absl::Status Prepare(const grpc::ByteBuffer& request_bytes);
  // Writes `reply`, which is kept until it is sent.
  absl::Status Write(const v1::ExportStateReply& reply);
  // Once.
  void Answer(const absl::Status& status);

  grpc::CallbackServerContext* const context_;
  SessionRegistry& registry_;
  CallGate& gate_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();

  CallGate::Pass pass_, bytes_;
  int64_t request_bytes_ = 0, reply_bytes_ = 0;
  std::string session_;  // for the log
  std::optional<Export> made_;
  grpc::ByteBuffer message_;
};

}  // namespace normserve
