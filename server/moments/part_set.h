// Moments of one layer, gathered from batches, workers or sites, each under an id of its own.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/batch_norm.h"

namespace normserve {

// The largest count, of a part and of all: up to 2^53 a double counts exactly.
inline constexpr int64_t kMaxCount = int64_t{1} << 53;

// A part that somebody else keeps.
struct PartView {
  absl::string_view id;
  const Moments* moments = nullptr;  // checked, as PartSet checks what it takes
};

// A set: what is made of it depends on the parts alone, never on who brought them or in which order, bit for bit. It
// keeps every part (SizeBytes), so a sender that has much to send merges its own batches first. Not thread-safe.
//
// An id that comes twice with equal moments counts once, so a retry does no harm.
class PartSet {
 public:
  // `num_features` is C, 1 or more.
  explicit PartSet(size_t num_features) : num_features_(num_features) {}

  // Adds a part. After an error the set is as it was. INVALID_ARGUMENT, naming id, channel, value and what would be
  // right: (SHAPE_MISMATCH) mean or m2 has another length than C; (NON_FINITE) a value is NaN or infinite;
  // (INVALID_FIELD) no id, a count below 0 or above kMaxCount, values with count 0, a negative m2, an m2 above 0 of one
  // value, other moments under an id that is here, or a sum of counts above kMaxCount. Count 0 with empty vectors is a
  // part that contributes nothing.
  absl::Status Add(absl::string_view id, Moments moments);

  // Adds every part of `other`, or none.
  absl::Status Merge(const PartSet& other);

  size_t num_features() const { return num_features_; }
  int64_t count() const { return count_; }  // values a channel, of all parts
  // The same, without copies; valid until the set changes.
  std::vector<PartView> Views() const;
  // Parts by id, in the order of its bytes.
  const std::map<std::string, Moments, std::less<>>& parts() const { return parts_; }

  // About what the set keeps in memory.
  int64_t SizeBytes() const;

 private:
  // Whether the part by itself is sound.
  absl::Status Check(absl::string_view id, const Moments& moments) const;
  // Whether it is one more, beside parts of `count` values; false if it is here already.
  absl::StatusOr<bool> IsNew(absl::string_view id, const Moments& moments, int64_t count) const;

  size_t num_features_;
  int64_t count_ = 0;
  std::map<std::string, Moments, std::less<>> parts_;
};

}  // namespace normserve
