#include "server/session/collection.h"

#include "absl/strings/str_cat.h"

namespace normserve {
namespace {

// Map nodes, pointers, the row.
constexpr int64_t kFixedBytes = 256;

template <typename... Vectors>
int64_t ValuesOf(const Vectors&... vectors) {
  return static_cast<int64_t>((vectors.size() + ...));
}

}  // namespace

std::vector<PartView> Collection::Views() const {
  std::vector<PartView> views;
  views.reserve(parts.size());
  for (const auto& part : parts) views.push_back({.id = part->id, .moments = &part->moments});
  return views;
}

std::string CollectionText(const CollectionKey& key) {
  return absl::StrCat(key.first == CollectionKind::kMerge ? "merge" : "calibration", " \"", key.second, "\"");
}

int64_t PartSizeBytes(absl::string_view id, int64_t num_features) {
  return kFixedBytes + static_cast<int64_t>(id.size() + 2 * sizeof(double) * static_cast<size_t>(num_features));
}

int64_t ResultSizeBytes(absl::string_view id, const CollectionResult& result) {
  const int64_t num_values =
      ValuesOf(result.merged.mean, result.merged.m2, result.variance_within, result.variance_between,
               result.before.mean, result.before.variance, result.after.mean, result.after.variance);
  return kFixedBytes + static_cast<int64_t>(id.size() + result.committed_as.size()) +
         num_values * static_cast<int64_t>(sizeof(double));
}

int64_t CollectionBytes(const std::shared_ptr<const Collections>& collections) {
  int64_t size_bytes = 0;
  if (collections == nullptr) return size_bytes;
  for (const auto& [key, collection] : *collections) size_bytes += collection->size_bytes;
  return size_bytes;
}

int64_t NumCollectionRows(const std::shared_ptr<const Collections>& collections) {
  int64_t num_rows = 0;
  if (collections == nullptr) return num_rows;
  for (const auto& [key, collection] : *collections) num_rows += collection->num_rows;
  return num_rows;
}

}  // namespace normserve
