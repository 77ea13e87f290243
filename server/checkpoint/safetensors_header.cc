#include "server/checkpoint/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/checkpoint/checkpoint_error.h"

namespace normserve {
namespace {

constexpr absl::string_view kMetadataKey = "__metadata__";
constexpr size_t kMaxDimensions = 64;

// Takes the header's JSON as it is parsed: a document would keep only one of two equal keys. The methods are those that
// nlohmann::json::sax_parse calls; false ends the parse, with error() said.
class HeaderHandler {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  bool start_object(size_t) {
    switch (at_) {
      case At::kStart:
        at_ = At::kNames;
        return true;
      case At::kTensor:
        at_ = At::kEntry;
        return true;
      case At::kMetadata:
        at_ = At::kMetadataKeys;
        return true;
      default:
        return Wrong("an object");
    }
  }

  bool key(string_t& name) {
    if (at_ == At::kNames) {
      if (name == kMetadataKey) {
        if (std::exchange(has_metadata_, true)) return Fail(absl::StrCat("the header has ", kMetadataKey, " twice"));
        at_ = At::kMetadata;
      } else {
        tensors_.push_back({.name = std::move(name)});
        has_dtype_ = has_shape_ = false;
        num_offsets_ = kNoOffsets;
        at_ = At::kTensor;
      }
      return true;
    }
    if (at_ == At::kMetadataKeys) {
      metadata_keys_.push_back(std::move(name));
      at_ = At::kMetadataText;
      return true;
    }
    // kEntry: objects begin nowhere else.
    at_ = name == "dtype" && !has_dtype_                         ? At::kDtype
          : name == "shape" && !has_shape_                       ? At::kShape
          : name == "data_offsets" && num_offsets_ == kNoOffsets ? At::kOffsets
                                                                 : At::kStart;
    if (at_ != At::kStart) return true;
    return Fail(absl::StrCat("tensor ", Quoted(tensors_.back().name), " has ", Quoted(name),
                             ": each of dtype, shape and data_offsets once, and nothing else"));
  }

  bool string(string_t& text) {
    if (at_ == At::kMetadataText) {
      at_ = At::kMetadataKeys;
      return true;
    }
    if (at_ != At::kDtype) return Wrong("a text");
    if (text.size() > 16)
      return Fail(absl::StrCat("tensor ", Quoted(tensors_.back().name), " has dtype ", Quoted(text)));
    tensors_.back().dtype = std::move(text);
    has_dtype_ = true;
    at_ = At::kEntry;
    return true;
  }

  bool start_array(size_t) {
    if (at_ == At::kShape) {
      has_shape_ = true;
      at_ = At::kShapeValues;
      return true;
    }
    if (at_ != At::kOffsets) return Wrong("an array");
    num_offsets_ = 0;
    at_ = At::kOffsetValues;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) {
    TensorEntry* const tensor = tensors_.empty() ? nullptr : &tensors_.back();
    if (at_ == At::kShapeValues) {
      if (tensor->shape.size() == kMaxDimensions) {
        return Fail(absl::StrCat("tensor ", Quoted(tensor->name), " has more than ", kMaxDimensions, " dimensions"));
      }
      tensor->shape.push_back(value);
      return true;
    }
    if (at_ != At::kOffsetValues) return Wrong("a number");
    if (num_offsets_ == 2)
      return Fail(absl::StrCat("tensor ", Quoted(tensor->name), " has more than two data_offsets"));
    (num_offsets_++ == 0 ? tensor->begin : tensor->end) = value;
    return true;
  }

  bool end_array() {
    if (at_ == At::kOffsetValues && num_offsets_ != 2) {
      return Fail(absl::StrCat("tensor ", Quoted(tensors_.back().name), " has ", num_offsets_, " data_offsets: two"));
    }
    at_ = At::kEntry;
    return true;
  }

  bool end_object() {
    if (at_ == At::kEntry && (!has_dtype_ || !has_shape_ || num_offsets_ != 2)) {
      return Fail(absl::StrCat("tensor ", Quoted(tensors_.back().name), " lacks one of dtype, shape and data_offsets"));
    }
    at_ = at_ == At::kNames ? At::kEnd : At::kNames;
    return true;
  }

  bool null() { return Wrong("null"); }
  bool boolean(bool) { return Wrong("a truth value"); }
  bool number_integer(number_integer_t) { return Wrong("a negative number"); }
  bool number_float(number_float_t, const string_t&) { return Wrong("a number that is no integer of 64 bits"); }
  bool binary(binary_t&) { return Wrong("bytes"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    return Fail(absl::StrCat("the header is no JSON from its byte ", position, " on"));
  }

  const std::string& error() const { return error_; }
  std::vector<TensorEntry>& tensors() { return tensors_; }
  std::vector<std::string>& metadata_keys() { return metadata_keys_; }

 private:
  // What comes next.
  enum class At {
    kStart,
    kNames,
    kTensor,
    kEntry,
    kDtype,
    kShape,
    kShapeValues,
    kOffsets,
    kOffsetValues,
    kMetadata,
    kMetadataKeys,
    kMetadataText,
    kEnd,
  };
  static constexpr int kNoOffsets = -1;

  bool Fail(std::string what) {
    error_ = std::move(what);
    return false;
  }

  bool Wrong(const char* what) {
    const bool is_tensors = !tensors_.empty() && at_ != At::kStart && at_ != At::kMetadata && at_ != At::kMetadataText;
    return Fail(absl::StrCat(
        "the header has ", what, is_tensors ? " in tensor " : "", is_tensors ? Quoted(tensors_.back().name) : "",
        ": an object of tensors, each with a dtype (text), a shape and two data_offsets (integers of 0 "
        "or more), and of __metadata__, texts"));
  }

  At at_ = At::kStart;
  std::string error_;
  std::vector<TensorEntry> tensors_;
  std::vector<std::string> metadata_keys_;
  bool has_metadata_ = false;
  // Of the last tensor.
  bool has_dtype_ = false;
  bool has_shape_ = false;
  int num_offsets_ = kNoOffsets;
};

absl::Status CheckSize(const TensorEntry& tensor) {
  if (tensor.begin > tensor.end) {
    return CheckpointError(
        absl::StrCat("tensor ", Quoted(tensor.name), " ends at ", tensor.end, ", before it begins at ", tensor.begin));
  }
  const uint64_t value_bytes = DtypeSizeBytes(tensor.dtype);
  if (value_bytes == 0) return absl::OkStatus();
  uint64_t size_bytes = value_bytes;
  bool overflows = false;
  for (const uint64_t dimension : tensor.shape) {
    overflows = overflows || __builtin_mul_overflow(size_bytes, dimension, &size_bytes);
  }
  // A later 0 makes nothing of what overflowed before.
  if (std::count(tensor.shape.begin(), tensor.shape.end(), 0u) > 0) size_bytes = 0, overflows = false;
  if (!overflows && size_bytes == tensor.size_bytes()) return absl::OkStatus();
  return CheckpointError(absl::StrCat("tensor ", Quoted(tensor.name), " is ", TypeText(tensor), " and has ",
                                      tensor.size_bytes(), " bytes",
                                      overflows ? "" : absl::StrCat(": it takes ", size_bytes)));
}

// The tensors lie one after the other; how many bytes they have.
absl::StatusOr<uint64_t> CheckRanges(const std::vector<TensorEntry>& tensors) {
  std::vector<const TensorEntry*> in_order;
  in_order.reserve(tensors.size());
  for (const TensorEntry& tensor : tensors) in_order.push_back(&tensor);
  std::sort(in_order.begin(), in_order.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  uint64_t position = 0;
  for (const TensorEntry* tensor : in_order) {
    if (tensor->begin != position) {
      return CheckpointError(
          absl::StrCat("tensor ", Quoted(tensor->name), " begins at ", tensor->begin,
                       tensor->begin < position ? ", inside another that ends at " : ", after a gap from ", position));
    }
    position = tensor->end;
  }
  return position;
}

template <typename T, typename Name>
const T* FirstTwice(const std::vector<T>& sorted, Name name) {
  const auto found =
      std::adjacent_find(sorted.begin(), sorted.end(), [&](const T& a, const T& b) { return name(a) == name(b); });
  return found == sorted.end() ? nullptr : &*found;
}

}  // namespace

const TensorEntry* SafetensorsHeader::Find(absl::string_view name) const {
  const auto found = std::lower_bound(tensors.begin(), tensors.end(), name, [](const TensorEntry& a, const auto& b) {
    return absl::string_view(a.name) < b;
  });
  return found == tensors.end() || found->name != name ? nullptr : &*found;
}

uint64_t DtypeSizeBytes(absl::string_view dtype) {
  constexpr std::pair<const char*, uint64_t> kSizes[] = {
      {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"F64", 8},  {"I32", 4},     {"U8", 1},     {"I8", 1},
      {"I16", 2}, {"U16", 2}, {"U32", 4},  {"U64", 8}, {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [name, size_bytes] : kSizes) {
    if (dtype == name) return size_bytes;
  }
  return 0;
}

std::string TypeText(const TensorEntry& tensor) {
  return absl::StrCat(tensor.dtype, " [", absl::StrJoin(tensor.shape, ", "), "]");
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json) {
  // The parser would pass over a byte order mark and leading white space, which the format does not have.
  if (json.empty() || json[0] != '{') return CheckpointError("the header does not begin with '{'");
  HeaderHandler handler;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &handler)) return CheckpointError(handler.error());

  SafetensorsHeader header{.tensors = std::move(handler.tensors())};
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; });
  if (const auto* twice =
          FirstTwice(header.tensors, [](const auto& tensor) { return absl::string_view(tensor.name); })) {
    return CheckpointError(absl::StrCat("tensor ", Quoted(twice->name), " is there twice"));
  }
  std::vector<std::string>& keys = handler.metadata_keys();
  std::sort(keys.begin(), keys.end());
  if (const auto* twice = FirstTwice(keys, [](const auto& key) { return absl::string_view(key); })) {
    return CheckpointError(absl::StrCat(kMetadataKey, " has ", Quoted(*twice), " twice"));
  }
  for (const TensorEntry& tensor : header.tensors) {
    if (absl::Status status = CheckSize(tensor); !status.ok()) return status;
  }
  auto data_bytes = CheckRanges(header.tensors);
  if (!data_bytes.ok()) return data_bytes.status();
  header.data_bytes = *data_bytes;
  return header;
}

}  // namespace normserve
