#include "server/session/stored_collections.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/session/records.h"
#include "server/session/stored_vectors.h"

namespace normserve {
namespace {

constexpr absl::string_view kMergePrefix = "merge/";
constexpr absl::string_view kCalibrationPrefix = "calibration/";

std::string RowKey(const CollectionKey& key) {
  return absl::StrCat(key.first == CollectionKind::kMerge ? kMergePrefix : kCalibrationPrefix, key.second);
}

std::optional<CollectionKey> ReadRowKey(absl::string_view row_key) {
  if (absl::ConsumePrefix(&row_key, kMergePrefix)) return CollectionKey(CollectionKind::kMerge, std::string(row_key));
  if (absl::ConsumePrefix(&row_key, kCalibrationPrefix)) {
    return CollectionKey(CollectionKind::kCalibration, std::string(row_key));
  }
  return std::nullopt;
}

std::string WritePart(absl::string_view uid, absl::string_view collection, const CollectedPart& part) {
  RecordWriter to(kMomentsVersion);
  to.Text(uid).Text(collection).Text(part.id);
  return WriteMomentsFields(part.moments, to).Finish();
}

absl::StatusOr<CollectedPart> ReadPart(const StoredPart& what, absl::string_view uid, const StoredCollectionRow& row) {
  RecordReader from(row.record, kMomentsVersion);
  if (from.Text() != uid || from.Text() != row.collection || from.Text() != row.part) from.Spoil(kOfAnotherRow);
  CollectedPart part{.id = row.part, .moments = ReadMomentsFields(from)};
  return Finished(std::move(part), from, what);
}

std::string WriteResult(absl::string_view uid, absl::string_view collection, const CollectionResult& result) {
  RecordWriter to(kResultVersion);
  to.Text(uid).Text(collection).Int(result.generation).Int(result.order).Int(result.num_parts);
  to.Text(result.committed_as);
  WriteMomentsFields(result.merged, to).Vector(result.variance_within).Vector(result.variance_between);
  to.Vector(result.before.mean).Vector(result.before.variance).Int(result.batches_before);
  return to.Vector(result.after.mean).Vector(result.after.variance).Int(result.batches_after).Finish();
}

absl::StatusOr<CollectionResult> ReadResult(const StoredPart& what, absl::string_view uid,
                                            const StoredCollectionRow& row) {
  RecordReader from(row.record, kResultVersion);
  if (from.Text() != uid || from.Text() != row.collection) from.Spoil(kOfAnotherRow);
  CollectionResult result;
  result.generation = from.Int();
  result.order = from.Int();
  result.num_parts = from.Int();
  if (from.version() >= 3) result.committed_as = from.Text();
  result.merged = ReadMomentsFields(from);
  result.variance_within = from.Vector<double>();
  result.variance_between = from.Vector<double>();
  result.before.mean = from.Vector<double>();
  result.before.variance = from.Vector<double>();
  result.batches_before = from.Int();
  result.after.mean = from.Vector<double>();
  result.after.variance = from.Vector<double>();
  result.batches_after = from.Int();
  return Finished(std::move(result), from, what);
}

// The parts that `after` has beside those of `before`; both by id.
void AddParts(absl::string_view uid, const std::string& row_key, const Collection* before, const Collection& after,
              int64_t num_features, SessionWrite& write) {
  size_t at = 0;
  const size_t num_before = before == nullptr ? 0 : before->parts.size();
  for (const auto& part : after.parts) {
    if (at < num_before && before->parts[at] == part) {
      ++at;
      continue;
    }
    write.collected.push_back({.collection = row_key,
                               .part = part->id,
                               .size_bytes = PartSizeBytes(part->id, num_features),
                               .record = WritePart(uid, row_key, *part)});
  }
}

}  // namespace

void WriteCollections(absl::string_view uid, const std::shared_ptr<const Collections>& before, const Collections& after,
                      SessionWrite& write) {
  static const Collections kNone;
  const Collections& old = before == nullptr ? kNone : *before;
  for (const auto& [key, collection] : old) {
    const auto now = after.find(key);
    const bool is_committed = now != after.end() && now->second->result != nullptr && collection->result == nullptr;
    if (now == after.end() || is_committed) write.dropped_collections.push_back(RowKey(key));
  }
  for (const auto& [key, collection] : after) {
    const auto found = old.find(key);
    const Collection* const then = found == old.end() ? nullptr : found->second.get();
    if (then == collection.get()) continue;
    const std::string row_key = RowKey(key);
    if (collection->result != nullptr) {
      write.collected.push_back({.collection = row_key,
                                 .size_bytes = collection->size_bytes,
                                 .record = WriteResult(uid, row_key, *collection->result)});
    } else if (!collection->parts.empty()) {
      const auto num_features = static_cast<int64_t>(collection->parts[0]->moments.mean.size());
      AddParts(uid, row_key, then, *collection, num_features, write);
    }
  }
}

std::shared_ptr<const Collections> ReadCollections(const StoredPart& session, const StoredSession& stored,
                                                   int64_t num_rows, int64_t num_features) {
  std::map<CollectionKey, Collection> read;
  for (const StoredCollectionRow& row : stored.collected) {
    const auto key = ReadRowKey(row.collection);
    if (!key.has_value()) continue;  // nobody can ask for it
    Collection& collection = read[*key];
    collection.num_rows += 1;
    collection.size_bytes += row.size_bytes;
    StoredPart what = session.Of(CollectionText(*key));
    what.way_out = "drop it";
    if (row.part.empty()) {
      auto result = ReadResult(what, stored.head.uid, row);
      if (!result.ok()) collection.lost = result.status();
      if (result.ok()) collection.result = std::make_shared<const CollectionResult>(*std::move(result));
      continue;
    }
    auto part = ReadPart(what, stored.head.uid, row);
    if (part.ok() && (static_cast<int64_t>(part->moments.mean.size()) != num_features ||
                      static_cast<int64_t>(part->moments.m2.size()) != num_features)) {
      part = StoredDataLost(what, "a part is not of the session's length");
    }
    if (!part.ok()) {
      collection.lost = part.status();
      continue;
    }
    collection.count += part->moments.count;
    collection.parts.push_back(std::make_shared<const CollectedPart>(*std::move(part)));
  }
  int64_t num_missing = num_rows - static_cast<int64_t>(stored.collected.size());
  if (num_missing != 0) {
    for (auto& [key, collection] : read) {
      if (collection.result != nullptr || !collection.lost.ok()) continue;
      StoredPart what = session.Of(CollectionText(key));
      what.way_out = "drop it";
      collection.lost =
          StoredDataLost(what, absl::StrCat(num_missing, " parts of what the session gathers are missing"));
      // So that it stays known until it is dropped.
      collection.num_rows += std::exchange(num_missing, 0);
    }
  }
  if (read.empty()) return nullptr;
  auto collections = std::make_shared<Collections>();
  for (auto& [key, collection] : read) {
    (*collections)[key] = std::make_shared<const Collection>(std::move(collection));
  }
  return collections;
}

}  // namespace normserve
