// One WatchStats call as gRPC sees it.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>

#include "absl/status/status.h"

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

  explicit WatchCall(Owner& owner) : owner_(owner) {}

  // The owner's; 0: none yet.
  int64_t id = 0;

  // Only when the message before is done.
  void Write(const grpc::ByteBuffer& message) {
    message_ = message;
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
  grpc::ByteBuffer message_;
  bool has_ended_ = false;
};

}  // namespace normserve
