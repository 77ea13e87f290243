#include "client/cli/moments_file.h"

#include <zip.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/cli/npy.h"

namespace normserve::cli {
namespace {

using client::Data;
using client::Moments;

constexpr absl::string_view kNeeded =
    "send count, mean, m2 and, if it is known, num_samples, as normctl moments --json prints them";
// An archive that says it holds more is not read: memory is taken before anything is known of the contents.
constexpr uint64_t kMaxArrayBytes = uint64_t{1} << 31;

absl::Status Wrong(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

absl::StatusOr<Moments> FromJson(const std::string& path, const nlohmann::json& json) {
  if (!json.is_object()) return Wrong(path, absl::StrCat("is no object: ", kNeeded));
  for (const char* const name : {"count", "mean", "m2"}) {
    if (!json.contains(name)) return Wrong(path, absl::StrCat("has no \"", name, "\": ", kNeeded));
  }
  const auto is_whole = [](const nlohmann::json& number) {
    return number.is_number_integer() && (!number.is_number_unsigned() || number.get<uint64_t>() <= INT64_MAX);
  };
  const nlohmann::json& count = json["count"];
  if (!is_whole(count)) {
    return Wrong(path, absl::StrCat("count is ", count.dump(), ": send a whole number of values a channel"));
  }
  const nlohmann::json num_samples = json.value("num_samples", nlohmann::json(0));
  if (!is_whole(num_samples)) {
    return Wrong(path, absl::StrCat("num_samples is ", num_samples.dump(), ": send a whole number, or leave it out"));
  }
  for (const char* const name : {"mean", "m2"}) {
    const nlohmann::json& values = json[name];
    const bool is_vector = values.is_array() && std::all_of(values.begin(), values.end(),
                                                            [](const auto& value) { return value.is_number(); });
    if (!is_vector) return Wrong(path, absl::StrCat(name, " is no list of numbers: ", kNeeded));
  }
  return Moments{.count = count.get<int64_t>(),
                 .mean = json["mean"].get<std::vector<double>>(),
                 .m2 = json["m2"].get<std::vector<double>>(),
                 .num_samples = num_samples.get<int64_t>()};
}

absl::StatusOr<Data> ReadJson(const std::string& path, const std::string& bytes) {
  // One of two values would win silently.
  std::vector<std::set<std::string>> keys;
  std::string twice;
  const auto note_keys = [&](int /*depth*/, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (event == nlohmann::json::parse_event_t::object_start) keys.emplace_back();
    if (event == nlohmann::json::parse_event_t::object_end) keys.pop_back();
    if (event == nlohmann::json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  const nlohmann::json json = nlohmann::json::parse(bytes, note_keys, /*allow_exceptions=*/false);
  if (!twice.empty()) return Wrong(path, absl::StrCat("has \"", twice, "\" twice in one object: send it once"));
  if (json.is_discarded()) return Wrong(path, absl::StrCat("is no JSON, which has no NaN or Infinity: ", kNeeded));
  if (!json.is_object()) return Wrong(path, absl::StrCat("is no JSON object: ", kNeeded));
  Data data;
  // A layer may have that name too.
  if (json.contains("count") && !json["count"].is_object()) {
    auto moments = FromJson(path, json);
    if (!moments.ok()) return moments.status();
    data.moments = *std::move(moments);
    return data;
  }
  for (const auto& [layer, of_layer] : json.items()) {
    auto moments = FromJson(absl::StrCat(path, ": layer ", layer), of_layer);
    if (!moments.ok()) return moments.status();
    data.layers[layer] = *std::move(moments);
  }
  if (data.layers.empty()) return Wrong(path, absl::StrCat("holds nothing: ", kNeeded));
  return data;
}

using Archive = std::unique_ptr<zip_t, void (*)(zip_t*)>;

absl::StatusOr<std::string> ReadEntry(const std::string& path, zip_t* archive, zip_uint64_t index) {
  zip_stat_t stat;
  if (zip_stat_index(archive, index, 0, &stat) != 0) return Wrong(path, zip_strerror(archive));
  if (stat.size > kMaxArrayBytes)
    return Wrong(path, absl::StrCat(stat.name, " has ", stat.size, " bytes, 2 GiB at most"));
  std::string bytes(stat.size, '\0');
  zip_file_t* file = zip_fopen_index(archive, index, 0);
  if (file == nullptr) return Wrong(path, zip_strerror(archive));
  const zip_int64_t read = zip_fread(file, bytes.data(), bytes.size());
  const bool is_whole = read == static_cast<zip_int64_t>(bytes.size()) && zip_fclose(file) == 0;
  if (!is_whole) return Wrong(path, absl::StrCat(stat.name, " is damaged"));
  return bytes;
}

// A whole number in a .npy file, as numpy.int64 or another integer of 8 bytes.
absl::StatusOr<int64_t> ParseCount(absl::string_view bytes) {
  const auto header = ParseNpyHeader(bytes);
  if (!header.ok()) return header.status();
  if ((header->descr != "<i8" && header->descr != "<u8") || header->num_values != 1 ||
      bytes.size() - header->data_offset != sizeof(int64_t)) {
    return absl::InvalidArgumentError("is no single integer of 8 bytes: send a numpy.int64");
  }
  int64_t count;
  std::memcpy(&count, bytes.data() + header->data_offset, sizeof(count));
  return count;
}

absl::Status Take(const std::string& path, absl::string_view name, absl::string_view bytes, Moments& moments) {
  absl::Status status;
  if (name == "count" || name == "num_samples") {
    const auto count = ParseCount(bytes);
    status = count.status();
    if (count.ok()) (name == "count" ? moments.count : moments.num_samples) = *count;
  } else if (name == "mean" || name == "m2") {
    auto values = ParseNpyVector(bytes);
    status = values.status();
    if (values.ok()) (name == "mean" ? moments.mean : moments.m2) = *std::move(values);
  } else {
    return Wrong(path, absl::StrCat("has an array \"", name, "\": ", kNeeded));
  }
  return status.ok() ? status : Wrong(path, absl::StrCat(name, " ", status.message()));
}

absl::StatusOr<Data> ReadNpz(const std::string& path) {
  int code = 0;
  const Archive archive(zip_open(path.c_str(), ZIP_RDONLY, &code), [](zip_t* opened) { zip_discard(opened); });
  if (archive == nullptr) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string what = zip_error_strerror(&error);
    zip_error_fini(&error);
    if (code == ZIP_ER_NOENT) return absl::NotFoundError(absl::StrCat(path, ": ", what));
    return Wrong(path, absl::StrCat("is no .npz file: ", what));
  }
  Data data;
  const zip_int64_t num_entries = zip_get_num_entries(archive.get(), 0);
  for (zip_int64_t i = 0; i < num_entries; ++i) {
    const auto index = static_cast<zip_uint64_t>(i);
    absl::string_view name = zip_get_name(archive.get(), index, 0);
    const auto bytes = ReadEntry(path, archive.get(), index);
    if (!bytes.ok()) return bytes.status();
    name = absl::StripSuffix(name, ".npy");
    const size_t slash = name.rfind('/');
    Moments* moments = nullptr;
    if (slash == absl::string_view::npos) {
      if (!data.moments.has_value()) data.moments.emplace();
      moments = &*data.moments;
    } else {
      moments = &data.layers[std::string(name.substr(0, slash))];
      name.remove_prefix(slash + 1);
    }
    if (absl::Status status = Take(path, name, *bytes, *moments); !status.ok()) return status;
  }
  if (data.moments.has_value() == !data.layers.empty()) {
    return Wrong(path,
                 absl::StrCat(data.layers.empty() ? "holds nothing" : "holds layers and other arrays", ": ", kNeeded));
  }
  return data;
}

}  // namespace

bool IsMomentsFile(absl::string_view path) { return absl::EndsWith(path, ".json") || absl::EndsWith(path, ".npz"); }

absl::StatusOr<Data> ReadMomentsFile(const std::string& path) {
  if (absl::EndsWith(path, ".npz")) return ReadNpz(path);
  if (!absl::EndsWith(path, ".json")) return Wrong(path, "is neither .json nor .npz");
  auto bytes = ReadWholeFile(path);
  if (!bytes.ok()) return bytes.status();
  return ReadJson(path, *bytes);
}

nlohmann::ordered_json MomentsJson(const Moments& moments) {
  nlohmann::ordered_json json = {{"count", moments.count}, {"mean", moments.mean}, {"m2", moments.m2}};
  if (moments.num_samples > 0) json["num_samples"] = moments.num_samples;
  return json;
}

}  // namespace normserve::cli
