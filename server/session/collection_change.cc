#include "server/session/collection_change.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/error_reason.h"
#include "server/session/field_error.h"
#include "server/session/history.h"
#include "server/session/part_id.h"
#include "server/session/session_errors.h"

namespace normserve {
namespace {

bool SameMoments(const Moments& left, const Moments& right) {
  return left.count == right.count && left.mean == right.mean && left.m2 == right.m2;
}

absl::Status LimitReached(const char* limit, absl::string_view message) {
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached, message, {{"limit", limit}});
}

absl::Status CheckRoom(const CollectionStep& step, const std::string& session, const Collections& collections) {
  int64_t num_open = 0;
  std::string open;
  for (const auto& [key, collection] : collections) {
    if (collection->result != nullptr) continue;
    if (++num_open <= 3) absl::StrAppend(&open, open.empty() ? "" : ", ", CollectionText(key));
  }
  if (num_open < step.limits.max_open) return absl::OkStatus();
  return LimitReached("max_collections", absl::StrCat("session \"", session, "\" gathers for ", num_open,
                                                      " merges and calibrations, the most it may (", open,
                                                      num_open > 3 ? ", ..." : "", "): commit or drop some"));
}

// What the session's statistics become.
struct Outcome {
  NormalizationStatistics running;
  int64_t num_batches = 0;
};

absl::StatusOr<Outcome> OutcomeOf(const CollectionStep& step, const CollectionSums& sums, const SessionState& state) {
  const auto num_parts = static_cast<int64_t>(sums.of->parts.size());
  if (step.key.first == CollectionKind::kCalibration) {
    return Outcome{.running = sums.population.statistics, .num_batches = num_parts};
  }
  const Moments& merged = sums.merged.moments;
  const bool biased = state.config.running_variance == RunningVariance::kBiased;
  if (!biased && merged.count < 2) {
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kBatchTooSmall,
                     absl::StrCat("the parts have ", merged.count,
                                  " values a channel in all: an unbiased variance needs two or more"),
                     {{"field", "count"}});
  }
  Outcome outcome{.num_batches = std::max(state.num_batches_tracked, num_parts)};
  outcome.running.mean = merged.mean;
  for (size_t c = 0; c < merged.m2.size(); ++c) {
    outcome.running.variance.push_back(biased ? merged.BiasedVariance(c) : merged.UnbiasedVariance(c));
  }
  return outcome;
}

// A result's place among the session's committed collections; the oldest goes where there are too many.
void Remember(const CollectionKey& key, std::shared_ptr<Collection> committed, Collections& collections) {
  collections[key] = std::move(committed);
  const auto is_committed = [](const auto& entry) { return entry.second->result != nullptr; };
  while (std::count_if(collections.begin(), collections.end(), is_committed) >
         static_cast<int64_t>(kMaxCommittedCollections)) {
    auto oldest = collections.end();
    for (auto at = collections.begin(); at != collections.end(); ++at) {
      if (!is_committed(*at)) continue;
      if (oldest == collections.end() || at->second->result->order < oldest->second->result->order) oldest = at;
    }
    collections.erase(oldest);
  }
}

int64_t NextOrder(const Collections& collections) {
  int64_t order = 0;
  for (const auto& [key, collection] : collections) {
    if (collection->result != nullptr) order = std::max(order, collection->result->order);
  }
  return order + 1;
}

// Puts `outcome` in the place of the running statistics: of the session, or of a new snapshot.
void Replace(const CollectionStep& step, Outcome outcome, const SessionContent& newest, SessionChange& change) {
  auto next = std::make_shared<SessionState>(*newest.state);
  next->running = std::make_shared<const NormalizationStatistics>(std::move(outcome.running));
  next->num_batches_tracked = next->statistics_set_at = outcome.num_batches;
  next->update_time = absl::Now();
  if (!step.to_snapshot.empty()) {
    auto snapshots = std::make_shared<Snapshots>(*newest.snapshots);
    snapshots->emplace(step.to_snapshot, StateSnapshot{.state = std::move(next), .create_time = absl::Now()});
    change.snapshots = std::move(snapshots);
    return;
  }
  next->generation += 1;
  next->lineage += 1;
  change.observations = newest.observations;
  change.observations->history = WithReplacement(newest.observations.history.get(), *next);
  change.state = std::move(next);
}

// INVALID_ARGUMENT (NON_FINITE): a Forward could not compute with these in float32.
absl::Status CheckFitsFloat(const std::string& session, const NormalizationStatistics& running) {
  constexpr double kMost = std::numeric_limits<float>::max();
  for (size_t c = 0; c < running.mean.size(); ++c) {
    for (const auto& [what, value] : {std::pair{"mean", running.mean[c]}, std::pair{"variance", running.variance[c]}}) {
      if (std::abs(value) <= kMost) continue;
      return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite,
                       absl::StrCat("of the parts together the ", what, " of channel ", c, " of session \"", session,
                                    "\" is ", value, ", beyond float32: leave out the part that makes it so large"),
                       {{"field", "parts"}, {"channel", absl::StrCat(c)}});
    }
  }
  return absl::OkStatus();
}

// What a commit is asked to make of the parts.
std::string ChoicesOf(const CollectionStep& step) {
  if (step.key.first == CollectionKind::kMerge) {
    return step.policy == MergePolicy::kExact      ? "policy EXACT"
           : step.policy == MergePolicy::kWeighted ? "policy WEIGHTED"
                                                   : "policy KEEP_LOCAL";
  }
  const char* const estimator =
      step.method == CalibrationMethod::kPooled ? "estimator POOLED" : "estimator ALGORITHM_2";
  return step.to_snapshot.empty() ? estimator : absl::StrCat(estimator, " to_snapshot \"", step.to_snapshot, "\"");
}

absl::StatusOr<SessionChange> Commit(const CollectionStep& step, const CollectionSums& sums,
                                     const SessionIdentity& identity, const SessionContent& newest,
                                     GatheringAnswer answer, Collections collections) {
  const SessionState& state = *newest.state;
  SessionChange change;
  auto result = std::make_shared<CollectionResult>();
  result->order = answer.order = NextOrder(collections);
  result->num_parts = answer.num_parts;
  result->committed_as = ChoicesOf(step);
  result->generation = state.generation;
  if (step.key.first == CollectionKind::kMerge) {
    result->merged = sums.merged.moments;
    result->variance_within = sums.merged.within;
    result->variance_between = sums.merged.between;
  }
  if (step.key.first == CollectionKind::kCalibration || step.policy != MergePolicy::kKeepLocal) {
    auto outcome = OutcomeOf(step, sums, state);
    if (!outcome.ok()) return outcome.status();
    if (absl::Status status = CheckFitsFloat(identity.name, outcome->running); !status.ok()) return status;
    if (step.key.first == CollectionKind::kCalibration) {
      result->before = *state.running;
      result->after = outcome->running;
      result->batches_before = state.num_batches_tracked;
      result->batches_after = outcome->num_batches;
    }
    if (!step.to_snapshot.empty()) {
      absl::Status status = CheckNewSnapshot(identity, newest, step.to_snapshot);
      if (!status.ok()) return status;
    }
    Replace(step, *std::move(outcome), newest, change);
    if (change.state != nullptr) result->generation = change.state->generation;
  }
  answer.generation = result->generation;
  answer.is_committed = true;
  auto committed = std::make_shared<Collection>();
  committed->size_bytes = ResultSizeBytes(step.key.second, *result);
  committed->num_rows = 1;
  committed->result = std::move(result);
  Remember(step.key, std::move(committed), collections);
  change.collections = std::make_shared<const Collections>(std::move(collections));
  change.answer = std::move(answer);
  return change;
}

// Takes what the change adds to the bytes that are charged, or gives back what it saves.
absl::Status Charge(const SessionJournal& journal, const SessionContent& newest, SessionChange& change) {
  if (change.collections == nullptr) return absl::OkStatus();
  int64_t added_bytes = CollectionBytes(change.collections) - CollectionBytes(newest.collections);
  if (change.snapshots != nullptr) added_bytes += StateSizeBytes(newest.state->config.num_features);
  if (added_bytes <= 0) {
    change.freed_bytes = -added_bytes;
    return absl::OkStatus();
  }
  StateBudget& budget = *journal.surroundings().state_budget;
  if (!budget.TryTake(added_bytes)) return StateBytesReached(budget.max_bytes(), budget.bytes(), added_bytes);
  change.taken_bytes = added_bytes;
  return absl::OkStatus();
}

absl::StatusOr<SessionChange> Charged(const SessionJournal& journal, const SessionContent& newest,
                                      SessionChange change) {
  if (absl::Status status = Charge(journal, newest, change); !status.ok()) return status;
  return change;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Collection>> WithParts(const CollectionStep& step, const std::string& session,
                                                            std::shared_ptr<const Collection> before,
                                                            int64_t num_features) {
  auto after = before == nullptr ? std::make_shared<Collection>() : std::make_shared<Collection>(*before);
  for (const auto& part : step.parts) {
    auto& parts = after->parts;
    const auto at = std::lower_bound(parts.begin(), parts.end(), part->id,
                                     [](const auto& each, const std::string& id) { return each->id < id; });
    if (at != parts.end() && (*at)->id == part->id) {
      if (SameMoments((*at)->moments, part->moments)) continue;
      return PartConflict(session, part->id);
    }
    if (static_cast<int64_t>(parts.size()) >= step.limits.max_parts) {
      return LimitReached("max_collection_parts",
                          absl::StrCat(CollectionText(step.key), " of session \"", session, "\" has ", parts.size(),
                                       " parts, the most it may: merge parts of a worker before they are sent"));
    }
    if (part->moments.count > kMaxCount - after->count) {
      return FieldError(
          "count", absl::StrCat("part \"", part->id, "\" has count ", part->moments.count, ", and the others have ",
                                after->count, ": send at most 2^53 values a channel in all"));
    }
    after->count += part->moments.count;
    after->size_bytes += PartSizeBytes(part->id, num_features);
    after->num_rows += 1;
    parts.insert(at, part);
  }
  if (before != nullptr && before->parts.size() == after->parts.size()) return before;
  return after;
}

absl::StatusOr<CollectionSums> SumUp(const CollectionStep& step, std::shared_ptr<const Collection> collection,
                                     size_t num_features) {
  CollectionSums sums{.of = std::move(collection)};
  const std::vector<PartView> views = sums.of->Views();
  if (step.key.first == CollectionKind::kMerge) {
    auto merged = MergeParts(views, num_features, step.policy);
    if (!merged.ok()) return merged.status();
    sums.merged = *std::move(merged);
  } else {
    auto population = EstimatePopulation(views, num_features, step.method);
    if (!population.ok()) return population.status();
    sums.population = *std::move(population);
  }
  return sums;
}

absl::StatusOr<SessionChange> ChangeCollection(const CollectionStep& step, const CollectionSums* sums,
                                               const SessionJournal& journal, const SessionContent& newest) {
  const SessionIdentity& identity = journal.identity();
  if (newest.is_deleted) return SessionNotFound(identity.name);
  const SessionState& state = *newest.state;
  Collections collections = newest.collections == nullptr ? Collections{} : *newest.collections;
  const auto found = collections.find(step.key);
  const std::shared_ptr<const Collection> before = found == collections.end() ? nullptr : found->second;
  GatheringAnswer answer{
      .session = identity.name, .uid = identity.uid, .generation = state.generation, .key = step.key};
  SessionChange change;
  if (before == nullptr && step.parts.empty()) {
    change.answer = std::move(answer);
    return change;
  }
  if (state.running == nullptr) return NotTracked("parts", identity.name, "Observe keeps moments beside any session");
  if (before != nullptr && before->result != nullptr) {
    if (!step.parts.empty() || step.drop) {
      return CollectionCommitted(identity.name, CollectionText(step.key), before->result->num_parts,
                                 before->result->generation);
    }
    if (const std::string& first = before->result->committed_as;
        step.commit && !first.empty() && first != ChoicesOf(step)) {
      return CommittedOtherwise(identity.name, CollectionText(step.key), first, ChoicesOf(step));
    }
    answer.generation = before->result->generation;
    answer.num_parts = before->result->num_parts;
    answer.order = before->result->order;
    answer.is_committed = true;
    change.answer = std::move(answer);
    return change;
  }
  if (step.drop) {
    answer.num_parts = before->num_rows;
    collections.erase(step.key);
    change.collections = std::make_shared<const Collections>(std::move(collections));
    change.answer = std::move(answer);
    return Charged(journal, newest, std::move(change));
  }
  if (before != nullptr && !before->lost.ok()) return before->lost;
  if (before == nullptr) {
    if (absl::Status status = CheckRoom(step, identity.name, collections); !status.ok()) return status;
  }
  auto after = WithParts(step, identity.name, before, state.config.num_features);
  if (!after.ok()) return after.status();
  answer.num_parts = static_cast<int64_t>((*after)->parts.size());
  if (step.commit) {
    absl::StatusOr<CollectionSums> anew;
    // The same parts give the same sums, whoever brought them.
    if (sums == nullptr || sums->of->parts != (*after)->parts) {
      anew = SumUp(step, *after, static_cast<size_t>(state.config.num_features));
      if (!anew.ok()) return anew.status();
      sums = &*anew;
    }
    auto committed = Commit(step, *sums, identity, newest, std::move(answer), std::move(collections));
    if (!committed.ok()) return committed.status();
    return Charged(journal, newest, *std::move(committed));
  }
  change.answer = std::move(answer);
  if (*after == before) return change;
  collections[step.key] = *std::move(after);
  change.collections = std::make_shared<const Collections>(std::move(collections));
  return Charged(journal, newest, std::move(change));
}

}  // namespace normserve
