#include "server/rpc/split_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "absl/strings/str_cat.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

// Wire types, https://protobuf.dev/programming-guides/encoding.
constexpr uint32_t kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kFixed32 = 5;

constexpr uint32_t Tag(uint32_t field, uint32_t wire_type) { return field << 3 | wire_type; }
constexpr uint32_t kInputTag = Tag(v1::ForwardRequest::kInputFieldNumber, kLengthDelimited);
constexpr uint32_t kDataTag = Tag(v1::Tensor::kDataFieldNumber, kLengthDelimited);

class SliceInputStream final : public google::protobuf::io::ZeroCopyInputStream {
 public:
  explicit SliceInputStream(absl::Span<const grpc::Slice> slices) : slices_(slices) {}

  bool Next(const void** data, int* size) override {
    while (slice_ < slices_.size() && at_ == slices_[slice_].size()) ++slice_, at_ = 0;
    if (slice_ == slices_.size()) return false;
    *data = slices_[slice_].begin() + at_;
    *size = static_cast<int>(slices_[slice_].size() - at_);
    at_ = slices_[slice_].size();
    count_ += *size;
    return true;
  }
  // Only bytes of the last Next, so within one slice.
  void BackUp(int count) override {
    at_ -= static_cast<size_t>(count);
    count_ -= count;
  }
  bool Skip(int count) override {
    const void* data;
    int size;
    while (count > 0 && Next(&data, &size)) {
      if (size > count) BackUp(size - count);
      count -= std::min(count, size);
    }
    return count == 0;
  }
  int64_t ByteCount() const override { return count_; }

 private:
  const absl::Span<const grpc::Slice> slices_;
  size_t slice_ = 0;
  size_t at_ = 0;
  int64_t count_ = 0;
};

// A tensor without its values is its shape and little more: a dimension takes a byte here and eight once parsed.
constexpr int kMaxTensorHeaderBytes = 4096;

// Where input.data lies in the message.
struct Range {
  int64_t offset = 0;
  int64_t size_bytes = 0;
};

// Reads one message, from its first byte to its last.
class Splitter {
 public:
  Splitter(google::protobuf::io::ZeroCopyInputStream& stream, int size_bytes) : input_(&stream), end_(size_bytes) {}

  // False: truncated or malformed.
  bool Split(std::string& header, Range& values) {
    StringOutputStream stream(&header);
    CodedOutputStream output(&stream);
    while (input_.CurrentPosition() < end_) {
      const uint32_t tag = input_.ReadTag();
      if (tag == 0) return false;
      if (tag == kInputTag ? !SplitTensor(output, values) : !CopyField(tag, end_, end_, output)) return false;
    }
    return true;
  }

 private:
  // The length that comes next, if so many bytes follow before `end`.
  bool ReadLength(int end, int* length) {
    return input_.ReadVarintSizeAsInt(length) && *length <= end - input_.CurrentPosition();
  }

  // The tensor, without its values.
  bool SplitTensor(CodedOutputStream& output, Range& values) {
    int length;
    if (!ReadLength(end_, &length)) return false;
    const int end = input_.CurrentPosition() + length;
    std::string tensor;
    {
      StringOutputStream tensor_stream(&tensor);
      CodedOutputStream tensor_output(&tensor_stream);
      while (input_.CurrentPosition() < end) {
        const uint32_t tag = input_.ReadTag();
        if (tag == 0) return false;
        if (tag != kDataTag) {
          if (!CopyField(tag, end, kMaxTensorHeaderBytes, tensor_output)) return false;
          if (tensor_output.ByteCount() > kMaxTensorHeaderBytes) return false;
          continue;
        }
        int size_bytes;
        if (!ReadLength(end, &size_bytes)) return false;
        values = Range{.offset = input_.CurrentPosition(), .size_bytes = size_bytes};
        if (!input_.Skip(size_bytes)) return false;
        tensor_output.WriteTag(kDataTag);
        tensor_output.WriteVarint32(0);
      }
    }
    output.WriteTag(kInputTag);
    output.WriteVarint32(static_cast<uint32_t>(tensor.size()));
    output.WriteString(tensor);
    return input_.CurrentPosition() == end;
  }

  // The field whose tag was just read, if it is no longer than `max_length`. Groups, which proto3 does not have, are
  // refused.
  bool CopyField(uint32_t tag, int end, int max_length, CodedOutputStream& output) {
    output.WriteTag(tag);
    uint64_t value64;
    uint32_t value32;
    int length;
    std::string bytes;
    switch (tag & 7) {
      case kVarint:
        if (!input_.ReadVarint64(&value64)) return false;
        output.WriteVarint64(value64);
        break;
      case kFixed64:
        if (!input_.ReadLittleEndian64(&value64)) return false;
        output.WriteLittleEndian64(value64);
        break;
      case kFixed32:
        if (!input_.ReadLittleEndian32(&value32)) return false;
        output.WriteLittleEndian32(value32);
        break;
      case kLengthDelimited:
        if (!ReadLength(end, &length) || length > max_length || !input_.ReadString(&bytes, length)) return false;
        output.WriteVarint32(static_cast<uint32_t>(length));
        output.WriteString(bytes);
        break;
      default:
        return false;
    }
    return input_.CurrentPosition() <= end;
  }

  CodedInputStream input_;
  const int end_;  // offset after the last byte of the message
};

std::vector<absl::Span<const std::byte>> PiecesOf(absl::Span<const grpc::Slice> slices, Range range) {
  std::vector<absl::Span<const std::byte>> pieces;
  int64_t begin = 0;
  const int64_t last = range.offset + range.size_bytes;
  for (const grpc::Slice& slice : slices) {
    const int64_t end = begin + static_cast<int64_t>(slice.size());
    const int64_t from = std::max(begin, range.offset), to = std::min(end, last);
    if (from < to) {
      const auto* data = reinterpret_cast<const std::byte*>(slice.begin()) + (from - begin);
      pieces.emplace_back(data, static_cast<size_t>(to - from));
    }
    begin = end;
  }
  return pieces;
}

}  // namespace

absl::StatusOr<SplitMessage> SplitForwardRequest(absl::Span<const grpc::Slice> slices) {
  int64_t size_bytes = 0;
  for (const grpc::Slice& slice : slices) size_bytes += static_cast<int64_t>(slice.size());
  SliceInputStream stream(slices);
  SplitMessage message;
  Range values;
  if (size_bytes > std::numeric_limits<int>::max() ||
      !Splitter(stream, static_cast<int>(size_bytes)).Split(message.header, values)) {
    return FieldError("message",
                      absl::StrCat("the message of ", size_bytes, " bytes is truncated or no serialised ",
                                   "normserve.v1.ForwardRequest, or input.shape is too long: send it whole"));
  }
  message.values = PiecesOf(slices, values);
  return message;
}

}  // namespace normserve
