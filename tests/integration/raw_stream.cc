#include "tests/integration/raw_stream.h"

#include <vector>

namespace normserve::integration {
namespace {

grpc::ByteBuffer Buffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  (void)buffer.Dump(&slices);
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

}  // namespace

RawStream::RawStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) : stub_(channel) {
  call_ = stub_.PrepareCall(&context_, method, &queue_);
  call_->StartCall(this);
  Step();
}

RawStream::~RawStream() {
  if (!finished_) {
    Cancel();
    Finish();
  }
  queue_.Shutdown();
  void* tag;
  bool ok;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool RawStream::WriteLast(const std::string& message) {
  call_->WriteLast(Buffer(message), grpc::WriteOptions(), this);
  return Step();
}

bool RawStream::Read(std::string* message) {
  grpc::ByteBuffer buffer;
  call_->Read(&buffer, this);
  if (!Step()) return false;
  *message = Bytes(buffer);
  return true;
}

grpc::Status RawStream::Finish() {
  grpc::Status status;
  call_->Finish(&status, this);
  Step();
  finished_ = true;
  return status;
}

bool RawStream::Step() {
  void* tag;
  bool ok = false;
  return queue_.Next(&tag, &ok) && ok;
}

grpc::Status RawCall(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::string& request, std::string* reply) {
  RawStream stream(channel, method);
  stream.WriteLast(request);
  stream.Read(reply);
  return stream.Finish();
}

}  // namespace normserve::integration
