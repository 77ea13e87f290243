// Parts that a session gathers from many workers until they become one: of a merge or of a calibration.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/batch_norm.h"
#include "server/moments/part_set.h"

namespace normserve {

// What a client may make a server keep.
struct CollectionLimits {
  int64_t max_open = 64;       // of one session, at once
  int64_t max_parts = 10'000;  // of one collection
};

// Committed ones that a session remembers, so that a repeated commit is answered again and a late part refused.
constexpr size_t kMaxCommittedCollections = 8;

enum class CollectionKind { kMerge, kCalibration };

// What it was merged or calibrated to.
struct CollectionResult {
  int64_t generation = 0;  // of the session, then
  int64_t order = 0;       // rises from one commit of the session to the next
  int64_t num_parts = 0;
  std::string committed_as;               // the choices of the commit, as text to compare and tell; empty: not known
  Moments merged;                         // of a merge; empty with KEEP_LOCAL
  std::vector<double> variance_within;    // [C], of a merge
  std::vector<double> variance_between;   // [C], of a merge
  NormalizationStatistics before, after;  // [C], of a calibration
  int64_t batches_before = 0, batches_after = 0;  // num_batches_tracked
};

struct CollectedPart {
  std::string id;
  Moments moments;
};

// Immutable once shared; changes share the parts.
struct Collection {
  std::vector<std::shared_ptr<const CollectedPart>> parts;  // by id; none once committed
  int64_t count = 0;                                        // values a channel, of all parts
  int64_t size_bytes = 0;                                   // charged
  int64_t num_rows = 0;                                     // in a store: one a part, or one for the result
  std::shared_ptr<const CollectionResult> result;           // set once committed
  absl::Status lost;  // DATA_LOSS where what the store holds of it is damaged: it can only be dropped

  // For server/moments; valid as long as this.
  std::vector<PartView> Views() const;
};

// By kind and id.
using CollectionKey = std::pair<CollectionKind, std::string>;
using Collections = std::map<CollectionKey, std::shared_ptr<const Collection>>;

// "merge \"ID\"".
std::string CollectionText(const CollectionKey& key);

// What a part, or a result, of `num_features` channels is charged with.
int64_t PartSizeBytes(absl::string_view id, int64_t num_features);
int64_t ResultSizeBytes(absl::string_view id, const CollectionResult& result);

// Charged for all, and rows that a store keeps of them; null has none.
int64_t CollectionBytes(const std::shared_ptr<const Collections>& collections);
int64_t NumCollectionRows(const std::shared_ptr<const Collections>& collections);

}  // namespace normserve
