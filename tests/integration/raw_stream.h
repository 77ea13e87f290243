// One call by its bytes, one step at a time.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <memory>
#include <string>

namespace normserve::integration {

// Every step waits until it is done. Not thread-safe.
class RawStream {
 public:
  // Opens a call to `method`, "/package.Service/Method", on `channel`.
  RawStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& method);
  ~RawStream();

  // Sends one message, and says that it was the last.
  bool WriteLast(const std::string& message);
  // The next message; false at the end. Until it is called, a long reply stays with the server.
  bool Read(std::string* message);
  grpc::Status Finish();
  // Goes away without reading what the server has sent.
  void Cancel() { context_.TryCancel(); }

 private:
  bool Step();

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  grpc::GenericStub stub_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool finished_ = false;
};

// One message there and, if the call succeeded, one back.
grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::string& request, std::string* reply);

}  // namespace normserve::integration
