#include "normserve/checkpoint.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace normserve::client {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are read as they lie in memory");

constexpr uint64_t kLengthBytes = 8;

// Where a tensor lies in a file.
struct Entry {
  std::string dtype;
  uint64_t num_values = 1;
  uint64_t begin = 0, end = 0;
};

absl::Status NoFile(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("this is no safetensors file: ", what));
}

bool ReadSize(const nlohmann::json& value, uint64_t& size) {
  if (!value.is_number_unsigned()) return false;
  size = value.get<uint64_t>();
  return size <= uint64_t{1} << 60;
}

// False: it is no tensor within `file_bytes`, whose data begins at `data`.
bool ReadEntry(const nlohmann::json& value, uint64_t data, uint64_t file_bytes, Entry& entry) {
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets")) {
    return false;
  }
  const auto &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2) return false;
  entry.dtype = dtype.get<std::string>();
  for (const auto& dimension : shape) {
    uint64_t size = 0;
    if (!ReadSize(dimension, size) || __builtin_mul_overflow(entry.num_values, size, &entry.num_values)) return false;
  }
  if (!ReadSize(offsets[0], entry.begin) || !ReadSize(offsets[1], entry.end)) return false;
  entry.begin += data;
  entry.end += data;
  return entry.begin <= entry.end && entry.end <= file_bytes;
}

absl::StatusOr<std::map<std::string, Entry>> ReadEntries(absl::string_view file) {
  uint64_t length = 0;
  if (file.size() < kLengthBytes) return NoFile(absl::StrCat("it has ", file.size(), " bytes"));
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > file.size() - kLengthBytes) return NoFile(absl::StrCat("its header would have ", length, " bytes"));
  const absl::string_view text = file.substr(kLengthBytes, length);
  const auto header = nlohmann::json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return NoFile("its header is no JSON object");
  std::map<std::string, Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") continue;
    Entry entry;
    if (!ReadEntry(value, kLengthBytes + length, file.size(), entry)) {
      return NoFile(absl::StrCat("its tensor \"", name, "\" is described wrongly or lies outside of it"));
    }
    entries.emplace(name, std::move(entry));
  }
  return entries;
}

template <typename T>
std::vector<T> ValuesOf(absl::string_view bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

// To nearest, ties to even; infinity beyond the largest.
uint16_t HalfOf(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | 0x7c00;  // 2^16 and more
  if (magnitude < 0x38800000) {                       // below 2^-14 the step is 2^-24
    return sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(std::abs(value), 24)));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return sign | static_cast<uint16_t>((rounded - (112u << 23)) >> 13);
}

uint16_t BFloat16Of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <typename To, typename From, typename Convert>
std::string Converted(const std::vector<From>& values, Convert convert) {
  std::string bytes(values.size() * sizeof(To), '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    const To value = convert(values[i]);
    std::memcpy(bytes.data() + i * sizeof(To), &value, sizeof(To));
  }
  return bytes;
}

// The bytes of an exported tensor in another type; nothing where that does not hold them.
std::optional<std::string> BytesAs(const std::string& dtype, const Entry& from, absl::string_view bytes) {
  if (dtype == from.dtype) return std::string(bytes);
  if (from.dtype == "I64") {
    const auto counts = ValuesOf<int64_t>(bytes);
    const bool fits =
        std::all_of(counts.begin(), counts.end(), [](int64_t count) { return count == static_cast<int32_t>(count); });
    if (dtype != "I32" || !fits) return std::nullopt;
    return Converted<int32_t>(counts, [](int64_t count) { return static_cast<int32_t>(count); });
  }
  const auto values = ValuesOf<float>(bytes);
  if (dtype == "F64") return Converted<double>(values, [](float value) { return static_cast<double>(value); });
  // All ones in the exponent: infinity.
  const bool is_half = dtype == "F16";
  if (!is_half && dtype != "BF16") return std::nullopt;
  const uint16_t infinity = is_half ? 0x7c00 : 0x7f80;
  for (const float value : values) {
    if (((is_half ? HalfOf(value) : BFloat16Of(value)) & infinity) == infinity) return std::nullopt;
  }
  return Converted<uint16_t>(values, is_half ? HalfOf : BFloat16Of);
}

// Whether a checkpoint without this tensor means the same.
bool IsNeutral(const std::string& name, absl::string_view bytes) {
  if (absl::EndsWith(name, "num_batches_tracked")) return true;
  if (!absl::EndsWith(name, "weight") && !absl::EndsWith(name, "bias")) return false;
  const float neutral = absl::EndsWith(name, "weight") ? 1.0f : 0.0f;
  const auto values = ValuesOf<float>(bytes);
  return std::all_of(values.begin(), values.end(), [neutral](float value) { return value == neutral; });
}

}  // namespace

absl::StatusOr<std::string> MergeIntoCheckpoint(absl::string_view exported, std::string checkpoint) {
  const auto from = ReadEntries(exported);
  if (!from.ok()) return from.status();
  const auto to = ReadEntries(checkpoint);
  if (!to.ok()) return to.status();
  for (const auto& [name, entry] : *from) {
    const absl::string_view bytes = exported.substr(entry.begin, entry.end - entry.begin);
    const auto found = to->find(name);
    if (found == to->end()) {
      if (IsNeutral(name, bytes)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the checkpoint has no tensor \"", name, "\": it is of another model, or lacks the prefix"));
    }
    const Entry& target = found->second;
    if (target.num_values != entry.num_values) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", name, "\" has ", target.num_values,
                                                     " values in the checkpoint and ", entry.num_values,
                                                     " on the server"));
    }
    const auto values = BytesAs(target.dtype, entry, bytes);
    if (!values.has_value() || values->size() != target.end - target.begin) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", name, "\" is ", target.dtype,
                                                     " in the checkpoint, which does not hold its values"));
    }
    checkpoint.replace(target.begin, values->size(), *values);
  }
  return checkpoint;
}

}  // namespace normserve::client
