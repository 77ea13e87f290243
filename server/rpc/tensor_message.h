// Tensors in messages, read and written around their values, which stay where gRPC or the engine put them.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "normserve/v1/tensor.pb.h"
#include "server/rpc/call_gate.h"
#include "server/session/received_tensor.h"

namespace normserve {

// `header` without its values, which are `pieces`. `field` names the tensor in errors. INVALID_ARGUMENT: an enum has a
// value that this server does not know.
absl::StatusOr<ReceivedTensor> ReadTensor(absl::string_view field, const v1::Tensor& header,
                                          std::vector<absl::Span<const std::byte>> pieces,
                                          std::shared_ptr<const void> owner);

// A tensor to be sent.
struct TensorToSend {
  ElementType type = ElementType::kFloat32;
  Layout layout = Layout::kChannelsFirst;
  const std::vector<int64_t>& dimensions;
  const OutputTensor& values;
};

// A serialised message that begins with `message` and ends with `tensor` as its field `field_number`, whose last slices
// are the engine's own memory. That memory and `bytes` are given back when the transport is done with them.
grpc::ByteBuffer WriteWithTensor(std::string message, int field_number, const TensorToSend& tensor,
                                 const CallGate::Pass& bytes);

}  // namespace normserve
