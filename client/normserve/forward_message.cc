#include "normserve/forward_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/slice.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "normserve/messages.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "normserve/v1/tensor.pb.h"

namespace normserve::client {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

// On the wire and here: little-endian.
static_assert(std::endian::native == std::endian::little && sizeof(float) == 4);

constexpr uint32_t Tag(int field) { return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED); }

// What protobuf can hold in one message, less what surrounds the values.
constexpr int64_t kMaxTensorBytes = std::numeric_limits<int32_t>::max() - (int64_t{1} << 20);

absl::Status Malformed(absl::string_view what) {
  return absl::InternalError(absl::StrCat("the server's reply cannot be read: ", what));
}

// Copies the fields of the message in `input` into `rest`, encoded, but gives the one tagged `tag` to `handle`.
template <typename Handle>
absl::Status SplitMessage(CodedInputStream& input, uint32_t tag, std::string& rest, Handle handle) {
  StringOutputStream stream(&rest);
  CodedOutputStream output(&stream);
  while (const uint32_t next = input.ReadTag()) {
    if (next == tag) {
      uint32_t length = 0;
      if (!input.ReadVarint32(&length)) return Malformed("a length is missing");
      if (absl::Status status = handle(length); !status.ok()) return status;
    } else if (!WireFormatLite::SkipField(&input, next, &output)) {
      return Malformed("a field is broken");
    }
  }
  if (!input.ConsumedEntireMessage()) return Malformed("it ends early");
  return absl::OkStatus();
}

// Reads `length` bytes of values; `input` is limited to the message they are in.
absl::Status ReadValues(CodedInputStream& input, uint32_t length, std::vector<float>& values) {
  // Checked before anything of that size is allocated.
  if (const int64_t there = input.BytesUntilLimit(); there < static_cast<int64_t>(length)) {
    return Malformed(absl::StrCat("output.data announces ", length, " bytes, at most ", there, " are there"));
  }
  if (length % sizeof(float) != 0) {
    return Malformed(absl::StrCat("output.data has ", length, " bytes, which is not a multiple of 4"));
  }
  values.resize(length / sizeof(float));
  if (!input.ReadRaw(values.data(), static_cast<int>(length))) return Malformed("values are missing");
  return absl::OkStatus();
}

absl::Status ReadTensor(CodedInputStream& input, Tensor& tensor) {
  std::string header_bytes;
  tensor.values.clear();
  absl::Status status = SplitMessage(input, Tag(v1::Tensor::kDataFieldNumber), header_bytes,
                                     [&](uint32_t length) { return ReadValues(input, length, tensor.values); });
  if (!status.ok()) return status;
  v1::Tensor header;
  if (!header.ParseFromString(header_bytes)) return Malformed("output is broken");
  if (header.data_type() != v1::DATA_TYPE_UNSPECIFIED && header.data_type() != v1::DATA_TYPE_FLOAT32) {
    return Malformed(absl::StrCat("output.data_type is ", header.data_type(), ", this library reads FLOAT32"));
  }
  tensor.shape.assign(header.shape().begin(), header.shape().end());
  tensor.layout = header.layout() == v1::LAYOUT_CHANNELS_LAST ? Layout::kChannelsLast : Layout::kChannelsFirst;
  return absl::OkStatus();
}

absl::Status CheckSize(absl::string_view field, const TensorView& tensor) {
  const int64_t values_bytes = static_cast<int64_t>(tensor.values.size()) * 4;
  if (values_bytes <= kMaxTensorBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " has ", values_bytes, " bytes; one message holds at most ",
                                                 kMaxTensorBytes, ": send it in smaller batches"));
}

// What comes before the values of a tensor in field `field` of a message.
std::string TensorHeader(int field, const TensorView& view) {
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  if (view.layout == Layout::kChannelsLast) tensor.set_layout(v1::LAYOUT_CHANNELS_LAST);
  tensor.mutable_shape()->Assign(view.shape.begin(), view.shape.end());
  const std::string tensor_header = tensor.SerializeAsString();
  std::string header;
  {
    StringOutputStream stream(&header);
    CodedOutputStream output(&stream);
    const auto values_size = static_cast<uint32_t>(view.values.size() * 4);
    const uint32_t data_size = CodedOutputStream::VarintSize32(Tag(v1::Tensor::kDataFieldNumber)) +
                               CodedOutputStream::VarintSize32(values_size) + values_size;
    output.WriteTag(Tag(field));
    output.WriteVarint32(static_cast<uint32_t>(tensor_header.size()) + data_size);
    output.WriteString(tensor_header);
    output.WriteTag(Tag(v1::Tensor::kDataFieldNumber));
    output.WriteVarint32(values_size);
  }
  return header;
}

// The values are copied: after a cancelled call the transport may still hold what it was given.
grpc::Slice Values(const TensorView& view) { return grpc::Slice(view.values.data(), view.values.size() * 4); }

// Reads a reply whose tensor is field `field`.
template <typename Message>
absl::Status DecodeReply(grpc::ByteBuffer& reply, int field, Message& message, Tensor& tensor) {
  grpc::ProtoBufferReader reader(&reply);
  if (!reader.status().ok()) return Malformed(reader.status().error_message());
  CodedInputStream input(&reader);
  // Every length inside is checked against what there really is.
  input.PushLimit(static_cast<int>(std::min<size_t>(reply.Length(), std::numeric_limits<int32_t>::max())));
  std::string header;
  absl::Status status = SplitMessage(input, Tag(field), header, [&](uint32_t length) {
    if (static_cast<int64_t>(length) > input.BytesUntilLimit()) return Malformed("its output is cut short");
    const CodedInputStream::Limit limit = input.PushLimit(static_cast<int>(length));
    absl::Status read = ReadTensor(input, tensor);
    input.PopLimit(limit);
    return read;
  });
  if (!status.ok()) return status;
  if (!message.ParseFromString(header)) return Malformed("its header is broken");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<grpc::ByteBuffer> EncodeForwardRequest(const ForwardRequest& request) {
  if (absl::Status status = CheckSize("input", request.input); !status.ok()) return status;
  const std::string header =
      ToMessage(request).SerializeAsString() + TensorHeader(v1::ForwardRequest::kInputFieldNumber, request.input);
  const grpc::Slice slices[] = {grpc::Slice(header), Values(request.input)};
  return grpc::ByteBuffer(slices, 2);
}

absl::StatusOr<ForwardResult> DecodeForwardReply(grpc::ByteBuffer& reply) {
  v1::ForwardReply message;
  Tensor output;
  absl::Status status = DecodeReply(reply, v1::ForwardReply::kOutputFieldNumber, message, output);
  if (!status.ok()) return status;
  ForwardResult result = FromMessage(message);
  result.output = std::move(output);
  return result;
}

absl::StatusOr<grpc::ByteBuffer> EncodeBackwardRequest(const BackwardRequest& request) {
  absl::Status status = CheckSize("grad_output", request.grad_output);
  if (status.ok() && request.token.empty()) status = CheckSize("input", request.input);
  if (!status.ok()) return status;
  std::vector<grpc::Slice> slices;
  std::string header = ToMessage(request).SerializeAsString();
  if (request.token.empty()) {
    // A second part of `resent`, which Protocol Buffers merge with the first: the input.
    const std::string input_header = TensorHeader(v1::ResentForward::kInputFieldNumber, request.input);
    StringOutputStream stream(&header);
    CodedOutputStream output(&stream);
    output.WriteTag(Tag(v1::BackwardRequest::kResentFieldNumber));
    output.WriteVarint32(static_cast<uint32_t>(input_header.size() + request.input.values.size() * 4));
    output.WriteString(input_header);
    output.Trim();
    slices.emplace_back(header);
    slices.push_back(Values(request.input));
    header.clear();
  }
  slices.emplace_back(header + TensorHeader(v1::BackwardRequest::kGradOutputFieldNumber, request.grad_output));
  slices.push_back(Values(request.grad_output));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

absl::StatusOr<BackwardResult> DecodeBackwardReply(grpc::ByteBuffer& reply) {
  v1::BackwardReply message;
  Tensor gradient;
  absl::Status status = DecodeReply(reply, v1::BackwardReply::kGradInputFieldNumber, message, gradient);
  if (!status.ok()) return status;
  BackwardResult result = FromMessage(message);
  result.grad_input = std::move(gradient);
  return result;
}

}  // namespace normserve::client
