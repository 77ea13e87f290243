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
// The tensor of every message that has one, and the message that holds a second.
constexpr uint32_t kTensorTag = Tag(v1::ForwardRequest::kInputFieldNumber, kLengthDelimited);
static_assert(kTensorTag == Tag(v1::BackwardRequest::kGradOutputFieldNumber, kLengthDelimited));
static_assert(kTensorTag == Tag(v1::ResentForward::kInputFieldNumber, kLengthDelimited));
constexpr uint32_t kResentTag = Tag(v1::BackwardRequest::kResentFieldNumber, kLengthDelimited);
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

// Where the values of a tensor lie in the message.
struct Range {
  int64_t offset = 0;
  int64_t size_bytes = 0;
};

// Reads one message, from its first byte to its last.
class Splitter {
 public:
  // `resent` is null for a message that holds one tensor.
  Splitter(google::protobuf::io::ZeroCopyInputStream& stream, int size_bytes, Range& values, Range* resent)
      : input_(&stream), end_(size_bytes), values_(values), resent_(resent) {}

  // False: truncated or malformed.
  bool Split(std::string& header) {
    StringOutputStream stream(&header);
    CodedOutputStream output(&stream);
    while (input_.CurrentPosition() < end_) {
      const uint32_t tag = input_.ReadTag();
      if (tag == 0) return false;
      const bool read = tag == kTensorTag              ? SplitTensor(end_, values_, output)
                        : tag == kResentTag && resent_ ? SplitResent(output)
                                                       : CopyField(tag, end_, end_, output);
      if (!read) return false;
    }
    return true;
  }

 private:
  // The length that comes next, if so many bytes follow before `end`.
  bool ReadLength(int end, int* length) {
    return input_.ReadVarintSizeAsInt(length) && *length <= end - input_.CurrentPosition();
  }

  // A message within the message that holds a tensor.
  bool SplitResent(CodedOutputStream& output) {
    int length;
    if (!ReadLength(end_, &length)) return false;
    const int end = input_.CurrentPosition() + length;
    // One that comes again adds to the one before; of its tensor the last counts.
    std::string resent;
    {
      StringOutputStream resent_stream(&resent);
      CodedOutputStream resent_output(&resent_stream);
      while (input_.CurrentPosition() < end) {
        const uint32_t tag = input_.ReadTag();
        if (tag == 0) return false;
        const bool read = tag == kTensorTag ? SplitTensor(end, *resent_, resent_output)
                                            : CopyField(tag, end, end - input_.CurrentPosition(), resent_output);
        if (!read) return false;
      }
    }
    output.WriteTag(kResentTag);
    output.WriteVarint32(static_cast<uint32_t>(resent.size()));
    output.WriteString(resent);
    return input_.CurrentPosition() == end;
  }

  // The tensor, without its values.
  bool SplitTensor(int limit, Range& values, CodedOutputStream& output) {
    int length;
    if (!ReadLength(limit, &length)) return false;
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
    output.WriteTag(kTensorTag);
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
  Range& values_;
  Range* const resent_;
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

absl::StatusOr<SplitMessage> SplitRequest(absl::Span<const grpc::Slice> slices, absl::string_view type,
                                          absl::string_view tensor, bool has_resent) {
  int64_t size_bytes = 0;
  for (const grpc::Slice& slice : slices) size_bytes += static_cast<int64_t>(slice.size());
  SliceInputStream stream(slices);
  SplitMessage message;
  Range values, resent;
  if (size_bytes > std::numeric_limits<int>::max() ||
      !Splitter(stream, static_cast<int>(size_bytes), values, has_resent ? &resent : nullptr).Split(message.header)) {
    return FieldError("message",
                      absl::StrCat("the message of ", size_bytes, " bytes is truncated or no serialised normserve.v1.",
                                   type, ", or ", tensor, ".shape is too long: send it whole"));
  }
  message.values = PiecesOf(slices, values);
  message.resent_values = PiecesOf(slices, resent);
  return message;
}

}  // namespace

absl::StatusOr<SplitMessage> SplitForwardRequest(absl::Span<const grpc::Slice> slices) {
  return SplitRequest(slices, "ForwardRequest", "input", /*has_resent=*/false);
}

absl::StatusOr<SplitMessage> SplitBackwardRequest(absl::Span<const grpc::Slice> slices) {
  return SplitRequest(slices, "BackwardRequest", "grad_output", /*has_resent=*/true);
}

}  // namespace normserve
