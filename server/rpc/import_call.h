// The server's side of one ImportState: a file in pieces, then one answer.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "normserve/v1/checkpoint.pb.h"
#include "server/checkpoint/checkpoint_reader.h"
#include "server/rpc/call_gate.h"
#include "server/session/model_import.h"

namespace normserve {

// Reads the file as it comes and keeps its batch-norm tensors alone; what it keeps counts as bytes in work. The first
// error ends the call. Deletes itself when gRPC is done with it; until then it counts as a call in work.
class ImportCall final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  // `registry`, `gate` and `reply` outlive the call.
  ImportCall(grpc::CallbackServerContext* context, SessionRegistry& registry, CallGate& gate, grpc::ByteBuffer* reply)
      : context_(context), registry_(registry), gate_(gate), reply_(reply) {}

  void Start();

 private:
  void OnReadDone(bool ok) override;
  void OnDone() override { delete this; }

  // The next message.
  absl::Status Take();
  absl::Status Begin(const v1::ImportBegin& begin);
  // Counts what is held, and `more_bytes` beside it.
  absl::Status Count(int64_t more_bytes);
  // After the last message: hands the layers over.
  absl::Status Import();
  // Ends the call, the first time.
  void Answer(const absl::Status& status);

  grpc::CallbackServerContext* const context_;
  SessionRegistry& registry_;
  CallGate& gate_;
  grpc::ByteBuffer* const reply_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();

  CallGate::Pass pass_;
  std::vector<CallGate::Pass> bytes_;
  int64_t counted_bytes_ = 0, request_bytes_ = 0;
  grpc::ByteBuffer message_;
  std::optional<ImportDraft> draft_;  // set once `begin` is here
  std::string session_;               // for the log
  std::optional<CheckpointReader> reader_;
  Checkpoint read_;  // without its layers
  std::atomic<bool> is_answered_ = false;
};

}  // namespace normserve
