#include "server/session/session_changes.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/error_reason.h"
#include "server/session/session_errors.h"

namespace normserve {
namespace {

// Of statistics_set_at: the edit leaves it to who calls it.
constexpr int64_t kNotSaid = -2;

}  // namespace

SessionDescription Describe(const SessionIdentity& identity, const SessionContent& content) {
  const SessionState& state = *content.state;
  return SessionDescription{.name = identity.name,
                            .uid = identity.uid,
                            .config = state.config,
                            .mode = state.mode,
                            .generation = state.generation,
                            .num_batches_tracked = state.num_batches_tracked,
                            .create_time = identity.create_time,
                            .update_time = state.update_time,
                            .num_snapshots = static_cast<int64_t>(content.snapshots->size())};
}

SnapshotDescription Describe(const SessionIdentity& identity, absl::string_view name, const StateSnapshot& snapshot) {
  return SnapshotDescription{.session = identity.name,
                             .uid = identity.uid,
                             .name = std::string(name),
                             .generation = snapshot.state->generation,
                             .num_batches_tracked = snapshot.state->num_batches_tracked,
                             .create_time = snapshot.create_time,
                             .size_bytes = StateSizeBytes(snapshot.state->config.num_features)};
}

MakeChange StateChange(Edit edit) {
  return [edit = std::move(edit)](const SessionJournal& journal,
                                  const SessionContent& newest) -> absl::StatusOr<SessionChange> {
    const SessionIdentity& identity = journal.identity();
    if (newest.is_deleted) return SessionNotFound(identity.name);
    auto next = std::make_shared<SessionState>(*newest.state);
    SessionChange change{.observations = newest.observations};
    next->statistics_set_at = kNotSaid;
    if (absl::Status status = edit(journal, newest, *next, *change.observations); !status.ok()) return status;
    if (next->statistics_set_at == kNotSaid) {
      next->statistics_set_at = newest.state->statistics_set_at;
      if (next->running != newest.state->running) {
        const bool begins_anew = next->num_batches_tracked == 0 && AreInitial(*next->running);
        next->statistics_set_at = begins_anew ? kNeverSet : next->num_batches_tracked;
      }
    }
    next->generation = newest.state->generation + 1;
    next->update_time = absl::Now();
    if (next->running != newest.state->running) {
      change.observations->history = WithReplacement(newest.observations.history.get(), *next);
    }
    SessionContent after = newest;
    after.state = next;
    change.answer = Describe(identity, after);
    change.state = std::move(next);
    return change;
  };
}

MakeChange ModeChange(Mode mode) {
  return StateChange(
      [mode](const SessionJournal&, const SessionContent&, SessionState& state, Observations& observations) {
        state.mode = mode;
        if (mode == Mode::kShadow) observations.shadow = nullptr;
        return absl::OkStatus();
      });
}

absl::Status CheckNewSnapshot(const SessionIdentity& identity, const SessionContent& newest, const std::string& name) {
  if (newest.snapshots->contains(name)) return SnapshotExists(identity.name, name);
  if (static_cast<int64_t>(newest.snapshots->size()) >= kMaxSnapshots) {
    return MakeError(absl::StatusCode::kResourceExhausted, ErrorReason::kLimitReached,
                     absl::StrCat("session \"", identity.name, "\" has ", kMaxSnapshots,
                                  " snapshots, the most it may: delete some first"),
                     {{"limit", "max_snapshots"}});
  }
  return absl::OkStatus();
}

MakeChange SnapshotTaking(std::string name) {
  return [name = std::move(name)](const SessionJournal& journal,
                                  const SessionContent& newest) -> absl::StatusOr<SessionChange> {
    const SessionIdentity& identity = journal.identity();
    if (newest.is_deleted) return SessionNotFound(identity.name);
    if (absl::Status status = CheckNewSnapshot(identity, newest, name); !status.ok()) return status;
    const int64_t size_bytes = StateSizeBytes(newest.state->config.num_features);
    StateBudget& budget = *journal.surroundings().state_budget;
    if (!budget.TryTake(size_bytes)) return StateBytesReached(budget.max_bytes(), budget.bytes(), size_bytes);
    const StateSnapshot snapshot{.state = newest.state, .create_time = absl::Now()};
    auto snapshots = std::make_shared<Snapshots>(*newest.snapshots);
    snapshots->emplace(name, snapshot);
    return SessionChange{
        .snapshots = std::move(snapshots), .answer = Describe(identity, name, snapshot), .taken_bytes = size_bytes};
  };
}

MakeChange SnapshotRestoring(std::string name) {
  return StateChange([name = std::move(name)](const SessionJournal& journal, const SessionContent& newest,
                                              SessionState& state, Observations&) -> absl::Status {
    const auto found = newest.snapshots->find(name);
    if (found == newest.snapshots->end()) return SnapshotNotFound(journal.identity().name, name);
    if (!found->second.lost.ok()) return found->second.lost;
    const SessionState& kept = *found->second.state;
    state.mode = kept.mode;
    state.num_batches_tracked = kept.num_batches_tracked;
    state.statistics_set_at = kept.statistics_set_at;
    // Copies: the same vectors as another version would be two things to the journal.
    state.parameters = std::make_shared<const AffineParameters>(*kept.parameters);
    if (kept.running != nullptr) state.running = std::make_shared<const NormalizationStatistics>(*kept.running);
    state.lineage += 1;
    return absl::OkStatus();
  });
}

MakeChange SnapshotDeleting(std::string name) {
  return [name = std::move(name)](const SessionJournal& journal,
                                  const SessionContent& newest) -> absl::StatusOr<SessionChange> {
    const SessionIdentity& identity = journal.identity();
    if (newest.is_deleted) return SessionNotFound(identity.name);
    const auto found = newest.snapshots->find(name);
    if (found == newest.snapshots->end()) return SnapshotNotFound(identity.name, name);
    SnapshotDescription description = Describe(identity, name, found->second);
    auto snapshots = std::make_shared<Snapshots>(*newest.snapshots);
    snapshots->erase(name);
    const int64_t size_bytes = description.size_bytes;
    return SessionChange{
        .snapshots = std::move(snapshots), .answer = std::move(description), .freed_bytes = size_bytes};
  };
}

MakeChange SessionDeleting() {
  return [](const SessionJournal& journal, const SessionContent& newest) -> absl::StatusOr<SessionChange> {
    const SessionIdentity& identity = journal.identity();
    if (newest.is_deleted) return SessionNotFound(identity.name);
    const int64_t num_features = newest.state->config.num_features;
    const auto num_snapshots = static_cast<int64_t>(newest.snapshots->size());
    return SessionChange{
        .deletes = true,
        .answer = Deletion{.uid = identity.uid, .generation = newest.state->generation, .name = identity.name},
        .freed_bytes = SessionSizeBytes(num_features) + num_snapshots * StateSizeBytes(num_features) +
                       CollectionBytes(newest.collections)};
  };
}

}  // namespace normserve
