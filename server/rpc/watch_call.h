// One WatchStats call as gRPC sees it.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "server/rpc/call_observer.h"

namespace normserve {

// Passes what happens on to its owner, and deletes itself when gRPC is done with it. All but the events is called under
// the owner's lock.
class WatchCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // The message was handed to the transport; not `ok`: the caller is gone.
    virtual void OnWriteDone(WatchCall& call, bool ok) = 0;
    virtual void OnCancel(WatchCall& call) = 0;
    // Nothing more comes of the call, which ends after this.
    virtual void OnDone(WatchCall& call) = 0;
  };

  // `observer` is told when it ends; null, or outlives it.
  WatchCall(Owner& owner, CallObserver* observer, const grpc::CallbackServerContext& context, int64_t request_bytes)
      : owner_(owner), observer_(observer), context_(context), request_bytes_(request_bytes) {}

  // The owner's; 0: none yet.
  int64_t id = 0;

  // What is watched, as a log tells it.
  std::string session;

  // Only when the message before is done.
  void Write(const grpc::ByteBuffer& message) {
    message_ = message;
    reply_bytes_ += static_cast<int64_t>(message_.Length());
    StartWrite(&message_);
  }

  // Once counts; what is on its way is sent before.
  void End(const absl::Status& status);
  bool has_ended() const { return has_ended_; }

 private:
  void OnWriteDone(bool ok) override { owner_.OnWriteDone(*this, ok); }
  void OnCancel() override { owner_.OnCancel(*this); }
  void OnDone() override {
    owner_.OnDone(*this);
    delete this;
  }

  Owner& owner_;
  CallObserver* const observer_;
  const grpc::CallbackServerContext& context_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const int64_t request_bytes_;
  int64_t reply_bytes_ = 0;
  grpc::ByteBuffer message_;
  bool has_ended_ = false;
};

}  // namespace normserve
