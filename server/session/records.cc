#include "server/session/records.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <cstring>

namespace normserve {
namespace {

static_assert(std::endian::native == std::endian::little, "records are written as they lie in memory");

constexpr size_t kChecksumBytes = sizeof(uint64_t);

}  // namespace

RecordWriter& RecordWriter::Text(absl::string_view text) {
  Int(static_cast<int64_t>(text.size()));
  return Raw(text.data(), text.size());
}

std::string RecordWriter::Finish() {
  const uint64_t checksum = XXH3_64bits(bytes_.data(), bytes_.size());
  Raw(&checksum, sizeof(checksum));
  return std::move(bytes_);
}

RecordWriter& RecordWriter::Raw(const void* data, size_t size_bytes) {
  bytes_.append(static_cast<const char*>(data), size_bytes);
  return *this;
}

RecordReader::RecordReader(absl::string_view record, char newest_version) {
  if (record.size() < 1 + kChecksumBytes) {
    wrong_ = "it is too short";
    return;
  }
  const absl::string_view body = record.substr(0, record.size() - kChecksumBytes);
  uint64_t checksum;
  std::memcpy(&checksum, record.data() + body.size(), sizeof(checksum));
  if (checksum != XXH3_64bits(body.data(), body.size())) {
    wrong_ = "its checksum is wrong";
  } else if (body[0] < kFirstVersion || body[0] > newest_version) {
    wrong_ = "it was written by a newer version";
  } else {
    version_ = body[0];
    rest_ = body.substr(1);
  }
}

int64_t RecordReader::Int() {
  int64_t value = 0;
  Raw(&value, sizeof(value));
  return value;
}

double RecordReader::Double() {
  double value = 0;
  Raw(&value, sizeof(value));
  return value;
}

std::string RecordReader::Text() {
  const size_t size = Length(1);
  std::string text(rest_.substr(0, size));
  rest_.remove_prefix(size);
  return text;
}

absl::Status RecordReader::Finish(const StoredPart& what) {
  if (wrong_ == nullptr && !rest_.empty()) Spoil("it is too long");
  return wrong_ == nullptr ? absl::OkStatus() : StoredDataLost(what, wrong_);
}

size_t RecordReader::Length(size_t element_bytes) {
  const int64_t length = Int();
  if (length >= 0 && static_cast<uint64_t>(length) <= rest_.size() / element_bytes) return static_cast<size_t>(length);
  Spoil("a length in it is wrong");
  return 0;
}

void RecordReader::Raw(void* to, size_t size_bytes) {
  if (size_bytes > rest_.size()) return Spoil("it ends early");
  if (size_bytes > 0) std::memcpy(to, rest_.data(), size_bytes);
  rest_.remove_prefix(size_bytes);
}

}  // namespace normserve
