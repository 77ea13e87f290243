// The answers to the last changes, so that a repeated request gets the first answer again and changes nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/batch_norm.h"
#include "server/session/collection.h"
#include "server/session/fingerprint.h"
#include "server/session/session_errors.h"
#include "server/session/session_state.h"
#include "server/session/vector_budget.h"
#include "server/store/state_store.h"

namespace normserve {

// What a Forward normalised with.
enum class NormalizedWith { kBatch, kRunning, kGiven, kSnapshot, kBlend };

// What a Forward does to the session.
enum class Update {
  kNone,
  kRunning,  // folds the batch into the running statistics and counts it
  kShadow,   // merges it into the shadow moments
};

// What it takes to give an updating Forward's answer again from the resent batch: its numbers, and the vectors that
// its output was computed with. (Statistics given in the request come again with the repeat.)
struct ForwardAnswer {
  int64_t generation = 0;
  int64_t snapshot_generation = 0;
  int64_t num_batches_tracked = 0;
  NormalizedWith normalized_with = NormalizedWith::kBatch;
  Update update = Update::kNone;
  std::shared_ptr<const AffineParameters> parameters;      // null: dropped, the output cannot be given again
  std::shared_ptr<const NormalizationStatistics> running;  // if kRunning, or the snapshot's: kSnapshot, kBlend
  int64_t parameters_version = 0;                          // of the vectors, as in SessionState
  int64_t running_version = 0;
};

// A deleted session.
struct Deletion {
  std::string uid;
  int64_t generation = 0;
  std::string name;  // not remembered of one that was deleted by itself: its request has it
};

enum class ImportAction { kCreated, kReplaced, kSkipped };

// What an import made of its layers, in their order; the request has the rest. Empty: there were too many.
struct ImportAnswer {
  struct Part {
    std::array<char, 32> uid = {};
    int64_t generation = 0;
    ImportAction action = ImportAction::kCreated;
  };
  std::vector<Part> parts;
};

// What a session has observed, without the moments' vectors.
struct ObservationAnswer {
  std::string session;
  std::string uid;
  int64_t generation = 0;
  int64_t count = 0;  // values a channel, of all that was observed
};

// How a session's merge or calibration stands. What it came to is kept with the collection (its result of this order).
struct GatheringAnswer {
  std::string session;
  std::string uid;
  int64_t generation = 0;  // once committed: of the session then
  CollectionKey key;
  int64_t num_parts = 0;  // 0: the session has no part in it
  int64_t order = 0;
  bool is_committed = false;
};

// Those of a deleted model, in the order of their names.
using Deletions = std::vector<Deletion>;

using Answer = std::variant<SessionDescription, ForwardAnswer, Deletion, SnapshotDescription, ObservationAnswer,
                            GatheringAnswer, ImportAnswer, Deletions>;

// The answer as the kind that the method gives, whatever the kind. The fingerprint holds the method, so another kind is
// a collision: refused all the same.
template <typename Kind>
absl::StatusOr<Kind> AnswerAs(absl::StatusOr<Answer> answer, absl::string_view request_id) {
  if (!answer.ok()) return answer.status();
  Kind* kind = std::get_if<Kind>(&*answer);
  if (kind == nullptr) return RequestIdReused(request_id);
  return std::move(*kind);
}

// Bytes of vectors that a memory may keep.
struct VectorLimits {
  // At most.
  int64_t max_bytes = 0;
  // At most, while the budget is exceeded.
  int64_t scarce_bytes = 0;
  // Shared with other memories; null: none is.
  std::shared_ptr<VectorBudget> budget;
};

// Bounded twice: it forgets the oldest of more than `max_requests` requests, and where the vectors kept for Forwards
// take more than the limits allow, it drops those of the oldest (not the requests: they still change nothing).
//
// Not thread-safe: guarded by its owner's lock.
class RequestMemory {
 public:
  RequestMemory(size_t max_requests, VectorLimits limits);
  ~RequestMemory();
  RequestMemory(const RequestMemory&) = delete;
  RequestMemory& operator=(const RequestMemory&) = delete;

  // The answer given to `request_id`; null if it is not remembered, and for the empty id. Valid until the next call.
  // INVALID_ARGUMENT (REQUEST_ID_REUSED): the id was used with another payload.
  absl::StatusOr<const Answer*> Find(const std::string& request_id, const Fingerprint& fingerprint) const {
    const auto found = entries_.find(request_id);
    if (found == entries_.end()) return nullptr;
    if (found->second.fingerprint != fingerprint) return RequestIdReused(request_id);
    return &found->second.answer;
  }

  // Whether Find would find something, for those who want to compute the fingerprint only then.
  bool Contains(const std::string& request_id) const { return entries_.contains(request_id); }

  // Nothing for the empty id. The id must not be remembered yet.
  void Remember(const std::string& request_id, const Fingerprint& fingerprint, Answer answer);

  // Whether an answer was computed with these vectors.
  bool Keeps(const void* vectors) const { return vectors_.contains(vectors); }

  // The vectors that no answer was computed with any more, since the last call.
  std::vector<std::pair<VectorKind, int64_t>> TakeReleased() { return std::exchange(released_, {}); }

  size_t size() const { return entries_.size(); }
  int64_t vector_bytes() const { return vector_bytes_; }

 private:
  struct Entry {
    Fingerprint fingerprint;
    Answer answer;
  };
  // Vectors are counted once however many answers share them.
  struct Vectors {
    int64_t users = 0;
    int64_t size_bytes = 0;
    VectorKind kind = VectorKind::kParameters;
    int64_t version = 0;
  };

  void Retain(const void* vectors, const Vectors& description);
  void Release(const void* vectors);
  void RetainVectors(const Answer& answer);
  void DropVectors(Answer& answer);

  int64_t AllowedBytes() const;

  const size_t max_requests_;
  const VectorLimits limits_;

  std::unordered_map<std::string, Entry> entries_;
  std::deque<std::string> order_;   // oldest first
  size_t num_without_vectors_ = 0;  // the first so many of order_ have dropped theirs
  std::unordered_map<const void*, Vectors> vectors_;
  int64_t vector_bytes_ = 0;
  std::vector<std::pair<VectorKind, int64_t>> released_;
};

}  // namespace normserve
