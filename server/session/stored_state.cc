#include "server/session/stored_state.h"

#include <map>
#include <memory>
#include <utility>

#include "kernels/batch_norm.h"
#include "server/session/records.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

void WriteState(const SessionState& state, RecordWriter& to) {
  WriteConfigFields(state.config, to);
  to.Choice(state.mode)
      .Int(state.num_batches_tracked)
      .Int(state.generation)
      .Int(state.lineage)
      .Time(state.update_time)
      .Int(state.parameters_version)
      .Int(state.running_version)
      .Int(state.statistics_set_at);
}

SessionState ReadState(RecordReader& from) {
  SessionState state;
  state.config = ReadConfigFields(from);
  state.mode = from.Choice(Mode::kShadow);
  state.num_batches_tracked = from.Int();
  state.generation = from.Int();
  state.lineage = from.Int();
  state.update_time = from.Time();
  state.parameters_version = from.Int();
  state.running_version = from.Int();
  if (from.version() >= 4) state.statistics_set_at = from.Int();
  return state;
}

SessionHead ReadHeadFields(RecordReader& from) {
  SessionHead head{.state = ReadState(from), .create_time = from.Time()};
  if (from.version() < 2) return head;
  head.name = from.Text();
  head.uid = from.Text();
  head.num_remembered = from.Int();
  head.shadow_version = from.Int();
  if (from.version() >= 3) head.observed_version = from.Int();
  if (from.version() >= 4) head.num_updates = from.Int();
  if (from.version() >= 5) head.num_collection_rows = from.Int();
  if (from.version() >= 6) head.observed_before_version = from.Int();
  return head;
}

StoredSnapshot WriteSnapshot(absl::string_view uid, const std::string& name, const StateSnapshot& snapshot) {
  RecordWriter to(kSnapshotVersion);
  to.Text(uid).Text(name);
  WriteState(*snapshot.state, to);
  to.Time(snapshot.create_time).Vector(snapshot.state->parameters->weight).Vector(snapshot.state->parameters->bias);
  to.Choice(snapshot.state->running != nullptr);
  if (snapshot.state->running != nullptr) {
    to.Vector(snapshot.state->running->mean).Vector(snapshot.state->running->variance);
  }
  return {.name = name, .record = to.Finish()};
}

absl::StatusOr<StateSnapshot> ReadSnapshot(const StoredPart& what, absl::string_view uid, const StoredSnapshot& row) {
  RecordReader from(row.record, kSnapshotVersion);
  if (from.version() >= 2 && (from.Text() != uid || from.Text() != row.name)) from.Spoil(kOfAnotherRow);
  SessionState state = ReadState(from);
  StateSnapshot snapshot{.create_time = from.Time()};
  AffineParameters parameters;
  parameters.weight = from.Vector<float>();
  parameters.bias = from.Vector<float>();
  state.parameters = std::make_shared<const AffineParameters>(std::move(parameters));
  if (from.Bool()) {
    NormalizationStatistics statistics;
    statistics.mean = from.Vector<double>();
    statistics.variance = from.Vector<double>();
    state.running = std::make_shared<const NormalizationStatistics>(std::move(statistics));
  }
  snapshot.state = std::make_shared<const SessionState>(std::move(state));
  return Finished(std::move(snapshot), from, what);
}

}  // namespace

void WriteConfigFields(const SessionConfig& config, RecordWriter& to) {
  to.Int(config.num_features)
      .Double(config.epsilon)
      .Choice(config.averaging)
      .Double(config.momentum)
      .Choice(config.affine)
      .Choice(config.track_running_stats)
      .Choice(config.running_variance)
      .Choice(config.non_finite_policy)
      .Choice(config.convention)
      .Choice(config.durability)
      .Int(static_cast<int64_t>(config.labels.size()));
  for (const auto& [key, value] : config.labels) to.Text(key).Text(value);
}

SessionConfig ReadConfigFields(RecordReader& from) {
  SessionConfig config;
  config.num_features = from.Int();
  config.epsilon = from.Double();
  config.averaging = from.Choice(Averaging::kZeroDebiased);
  config.momentum = from.Double();
  config.affine = from.Bool();
  config.track_running_stats = from.Bool();
  config.running_variance = from.Choice(RunningVariance::kBiased);
  config.non_finite_policy = from.Choice(NonFinitePolicy::kSkipUpdate);
  config.convention = from.Choice(Convention::kOnnx);
  config.durability = from.Choice(Durability::kFlush);
  const int64_t num_labels = from.Int();
  for (int64_t i = 0; i < num_labels; ++i) {
    std::string key = from.Text();
    std::string value = from.Text();
    if (key.empty()) break;  // no label is: the record is damaged
    config.labels.emplace(std::move(key), std::move(value));
  }
  return config;
}

std::string WriteHead(const SessionHead& head) {
  RecordWriter to(kHeadVersion);
  WriteState(head.state, to);
  to.Time(head.create_time).Text(head.name).Text(head.uid);
  to.Int(head.num_remembered).Int(head.shadow_version).Int(head.observed_version);
  return to.Int(head.num_updates).Int(head.num_collection_rows).Int(head.observed_before_version).Finish();
}

absl::StatusOr<SessionHead> ReadHead(const StoredPart& what, const StoredHead& row) {
  RecordReader from(row.record, kHeadVersion);
  SessionHead head = ReadHeadFields(from);
  if (from.version() >= 2 && (head.name != row.name || head.uid != row.uid)) from.Spoil(kOfAnotherRow);
  if (!CheckSessionName("name", row.name).ok() || !IsSessionUid(row.uid)) from.Spoil("its name or uid is not legal");
  return Finished(std::move(head), from, what);
}

std::string NameInHead(absl::string_view record) {
  RecordReader from(record, kHeadVersion);
  SessionHead head = ReadHeadFields(from);
  return from.Finish({}).ok() ? std::move(head.name) : "";
}

void WriteSnapshots(absl::string_view uid, const Snapshots& before, const Snapshots& after, SessionWrite& write) {
  for (const auto& [name, snapshot] : after) {
    if (!before.contains(name)) write.snapshot = WriteSnapshot(uid, name, snapshot);
  }
  for (const auto& [name, snapshot] : before) {
    if (!after.contains(name)) write.deleted_snapshot = name;
  }
}

Snapshots ReadSnapshots(const StoredPart& session, const StoredSession& stored, const SessionState& newest) {
  const SessionConfig& config = newest.config;
  Snapshots snapshots;
  // Vectors of one version are one thing, as they were when they were taken.
  std::map<int64_t, std::shared_ptr<const NormalizationStatistics>> running = {
      {newest.running_version, newest.running}};
  for (const StoredSnapshot& row : stored.snapshots) {
    const StoredPart part = session.OfSnapshot(row.name);
    auto snapshot = ReadSnapshot(part, stored.head.uid, row);
    if (snapshot.ok() && snapshot->state->config != config) snapshot = StoredDataLost(part, "it is another session's");
    if (!snapshot.ok()) {
      snapshot = StateSnapshot{.state = std::make_shared<const SessionState>(SessionState{.config = config}),
                               .lost = snapshot.status()};
    } else if (const auto& own = snapshot->state->running; own != nullptr) {
      const auto& first = running.try_emplace(snapshot->state->running_version, own).first->second;
      if (first != own && first != nullptr && first->mean == own->mean && first->variance == own->variance) {
        auto state = std::make_shared<SessionState>(*snapshot->state);
        state->running = first;
        snapshot->state = std::move(state);
      }
    }
    snapshots.emplace(row.name, *std::move(snapshot));
  }
  return snapshots;
}

}  // namespace normserve
