#include "server/rpc/forward_messages.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/rpc/kept_fields.h"
#include "server/rpc/session_messages.h"
#include "server/rpc/split_message.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

using google::protobuf::io::CodedOutputStream;

constexpr uint32_t LengthDelimitedTag(uint32_t field) { return field << 3 | 2; }
constexpr uint32_t kOutputTag = LengthDelimitedTag(v1::ForwardReply::kOutputFieldNumber);
constexpr uint32_t kDataTag = LengthDelimitedTag(v1::Tensor::kDataFieldNumber);

absl::Status CheckTensorEnums(const v1::Tensor& tensor) {
  if (const int type = tensor.data_type(); type != v1::DATA_TYPE_UNSPECIFIED && type != v1::DATA_TYPE_FLOAT32) {
    return FieldError("input.data_type", absl::StrCat("input.data_type is ", type, ": send DATA_TYPE_FLOAT32 (1)"));
  }
  if (const int layout = tensor.layout(); layout != v1::LAYOUT_UNSPECIFIED && layout != v1::LAYOUT_CHANNELS_FIRST) {
    return FieldError("input.layout", absl::StrCat("input.layout is ", layout, ": send LAYOUT_CHANNELS_FIRST (1)"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<bool>> ReadUpdate(int update) {
  switch (update) {
    case v1::UPDATE_UNSPECIFIED:
      return std::optional<bool>();
    case v1::UPDATE_NONE:
      return false;
    case v1::UPDATE_RUNNING:
      return true;
    default:
      return FieldError("update", absl::StrCat("update is ", update, ": send UPDATE_NONE (1) or UPDATE_RUNNING (2)"));
  }
}

void ReadNormalizeWith(const v1::ForwardRequest& header, ForwardRequest& request) {
  switch (header.normalize_with_case()) {
    case v1::ForwardRequest::kBatch:
      request.normalize_with = NormalizedWith::kBatch;
      break;
    case v1::ForwardRequest::kRunning:
      request.normalize_with = NormalizedWith::kRunning;
      break;
    case v1::ForwardRequest::kGiven:
      request.normalize_with = NormalizedWith::kGiven;
      request.given.count = header.given().count();
      request.given.mean.assign(header.given().mean().begin(), header.given().mean().end());
      request.given.m2.assign(header.given().m2().begin(), header.given().m2().end());
      break;
    case v1::ForwardRequest::NORMALIZE_WITH_NOT_SET:
      break;
  }
}

v1::NormalizedWith WriteNormalizedWith(NormalizedWith normalized_with) {
  switch (normalized_with) {
    case NormalizedWith::kBatch:
      return v1::NORMALIZED_WITH_BATCH;
    case NormalizedWith::kRunning:
      return v1::NORMALIZED_WITH_RUNNING;
    case NormalizedWith::kGiven:
      return v1::NORMALIZED_WITH_GIVEN;
  }
  return v1::NORMALIZED_WITH_UNSPECIFIED;
}

// All of the reply up to the tensor's first value.
std::string WriteReplyHeader(const ForwardReply& reply, uint32_t size_bytes) {
  v1::ForwardReply message;
  message.set_generation(reply.generation);
  message.set_snapshot_generation(reply.snapshot_generation);
  message.set_num_batches_tracked(reply.num_batches_tracked);
  message.set_uid(reply.uid);
  message.set_normalized_with(WriteNormalizedWith(reply.normalized_with));
  message.set_update(reply.updated ? v1::UPDATE_RUNNING : v1::UPDATE_NONE);
  if (reply.batch_moments.has_value()) {
    v1::Moments* moments = message.mutable_batch_moments();
    moments->set_count(reply.batch_moments->count);
    moments->mutable_mean()->Add(reply.batch_moments->mean.begin(), reply.batch_moments->mean.end());
    moments->mutable_m2()->Add(reply.batch_moments->m2.begin(), reply.batch_moments->m2.end());
  }
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.set_layout(v1::LAYOUT_CHANNELS_FIRST);
  tensor.mutable_shape()->Add(reply.dimensions.begin(), reply.dimensions.end());

  const std::string tensor_header = tensor.SerializeAsString();
  const size_t data_header_bytes =
      CodedOutputStream::VarintSize32(kDataTag) + CodedOutputStream::VarintSize32(size_bytes);
  std::string text = message.SerializeAsString();
  google::protobuf::io::StringOutputStream stream(&text);
  CodedOutputStream output(&stream);
  output.WriteTag(kOutputTag);
  output.WriteVarint64(tensor_header.size() + data_header_bytes + size_bytes);
  output.WriteString(tensor_header);
  output.WriteTag(kDataTag);
  output.WriteVarint32(size_bytes);
  output.Trim();
  return text;
}

// What a slice of the reply keeps alive while the transport has it.
struct Lent {
  // Given back last: once no bytes are in work, the engine's memory is back too.
  CallGate::Pass bytes;
  std::shared_ptr<const void> output;
};

}  // namespace

absl::StatusOr<ForwardRequest> ReadForwardRequest(const grpc::ByteBuffer& message) {
  auto slices = std::make_shared<std::vector<grpc::Slice>>();
  if (!message.Dump(slices.get()).ok()) return FieldError("message", "the message cannot be read: send it again");
  auto split = SplitForwardRequest(*slices);
  if (!split.ok()) return split.status();
  v1::ForwardRequest header;
  if (!header.ParseFromString(split->header)) {
    return FieldError("message", "the message is no serialised normserve.v1.ForwardRequest");
  }
  if (absl::Status status = CheckKeptFields(header); !status.ok()) return status;
  ForwardRequest request{.name = header.name(),
                         .guard = ReadGuard(header),
                         .return_batch_moments = header.return_batch_moments(),
                         .dimensions = {header.input().shape().begin(), header.input().shape().end()},
                         .pieces = std::move(split->values),
                         .owner = std::move(slices)};
  auto mode = ReadMode(header.mode());
  if (!mode.ok()) return mode.status();
  request.mode = *mode;
  auto update = ReadUpdate(header.update());
  if (!update.ok()) return update.status();
  request.update = *update;
  ReadNormalizeWith(header, request);
  if (absl::Status status = CheckTensorEnums(header.input()); !status.ok()) return status;
  return request;
}

grpc::ByteBuffer WriteForwardReply(ForwardReply reply, CallGate::Pass bytes) {
  size_t size_bytes = 0;
  for (const auto& piece : reply.output.pieces) size_bytes += piece.size();
  std::vector<grpc::Slice> slices;
  slices.emplace_back(WriteReplyHeader(reply, static_cast<uint32_t>(size_bytes)));
  for (const auto& piece : reply.output.pieces) {
    // gRPC's slices are not const; nobody writes to them.
    auto* data = const_cast<std::byte*>(piece.data());
    slices.emplace_back(
        data, piece.size(), [](void* lent) { delete static_cast<Lent*>(lent); }, new Lent{bytes, reply.output.owner});
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace normserve
