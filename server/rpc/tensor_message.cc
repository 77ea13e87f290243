#include "server/rpc/tensor_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

using google::protobuf::io::CodedOutputStream;

constexpr uint32_t LengthDelimitedTag(int field) { return static_cast<uint32_t>(field) << 3 | 2; }
constexpr uint32_t kDataTag = LengthDelimitedTag(v1::Tensor::kDataFieldNumber);

absl::StatusOr<ElementType> ReadDataType(absl::string_view field, int type) {
  switch (type) {
    case v1::DATA_TYPE_UNSPECIFIED:
    case v1::DATA_TYPE_FLOAT32:
      return ElementType::kFloat32;
    case v1::DATA_TYPE_FLOAT16:
      return ElementType::kFloat16;
    case v1::DATA_TYPE_BFLOAT16:
      return ElementType::kBFloat16;
    default:
      return FieldError(absl::StrCat(field, ".data_type"),
                        absl::StrCat(field, ".data_type is ", type,
                                     ": send DATA_TYPE_FLOAT32 (1), DATA_TYPE_FLOAT16 (2) or DATA_TYPE_BFLOAT16 (3)"));
  }
}

v1::DataType WriteDataType(ElementType type) {
  return type == ElementType::kFloat32   ? v1::DATA_TYPE_FLOAT32
         : type == ElementType::kFloat16 ? v1::DATA_TYPE_FLOAT16
                                         : v1::DATA_TYPE_BFLOAT16;
}

absl::StatusOr<Layout> ReadLayout(absl::string_view field, int layout) {
  switch (layout) {
    case v1::LAYOUT_UNSPECIFIED:
    case v1::LAYOUT_CHANNELS_FIRST:
      return Layout::kChannelsFirst;
    case v1::LAYOUT_CHANNELS_LAST:
      return Layout::kChannelsLast;
    default:
      return FieldError(
          absl::StrCat(field, ".layout"),
          absl::StrCat(field, ".layout is ", layout, ": send LAYOUT_CHANNELS_FIRST (1) or LAYOUT_CHANNELS_LAST (2)"));
  }
}

// What a slice of the reply keeps alive while the transport has it.
struct Lent {
  // Given back last: once no bytes are in work, the engine's memory is back too.
  CallGate::Pass bytes;
  std::shared_ptr<const void> output;
};

}  // namespace

absl::StatusOr<ReceivedTensor> ReadTensor(absl::string_view field, const v1::Tensor& header,
                                          std::vector<absl::Span<const std::byte>> pieces,
                                          std::shared_ptr<const void> owner) {
  const auto type = ReadDataType(field, header.data_type());
  if (!type.ok()) return type.status();
  const auto layout = ReadLayout(field, header.layout());
  if (!layout.ok()) return layout.status();
  return ReceivedTensor{.type = *type,
                        .layout = *layout,
                        .dimensions = {header.shape().begin(), header.shape().end()},
                        .pieces = std::move(pieces),
                        .owner = std::move(owner)};
}

grpc::ByteBuffer WriteWithTensor(std::string message, int field_number, const TensorToSend& to_send,
                                 const CallGate::Pass& bytes) {
  uint32_t size_bytes = 0;
  for (const auto& piece : to_send.values.pieces) size_bytes += static_cast<uint32_t>(piece.size());
  v1::Tensor tensor;
  tensor.set_data_type(WriteDataType(to_send.type));
  tensor.set_layout(to_send.layout == Layout::kChannelsFirst ? v1::LAYOUT_CHANNELS_FIRST : v1::LAYOUT_CHANNELS_LAST);
  tensor.mutable_shape()->Add(to_send.dimensions.begin(), to_send.dimensions.end());
  const std::string tensor_header = tensor.SerializeAsString();
  const size_t data_header_bytes =
      CodedOutputStream::VarintSize32(kDataTag) + CodedOutputStream::VarintSize32(size_bytes);
  {
    google::protobuf::io::StringOutputStream stream(&message);
    CodedOutputStream output(&stream);
    output.WriteTag(LengthDelimitedTag(field_number));
    output.WriteVarint64(tensor_header.size() + data_header_bytes + size_bytes);
    output.WriteString(tensor_header);
    output.WriteTag(kDataTag);
    output.WriteVarint32(size_bytes);
  }
  std::vector<grpc::Slice> slices;
  slices.emplace_back(message);
  for (const auto& piece : to_send.values.pieces) {
    // gRPC's slices are not const; nobody writes to them.
    auto* data = const_cast<std::byte*>(piece.data());
    slices.emplace_back(
        data, piece.size(), [](void* lent) { delete static_cast<Lent*>(lent); }, new Lent{bytes, to_send.values.owner});
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

}  // namespace normserve
