#include "server/session/session_rows.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <variant>

#include "absl/strings/str_cat.h"
#include "server/session/collection.h"
#include "server/session/stored_collections.h"
#include "server/session/stored_history.h"
#include "server/session/stored_state.h"

namespace normserve {
namespace {

// The record of `content`, with so many requests remembered.
std::string HeadOf(const SessionIdentity& identity, const SessionContent& content, int64_t num_remembered) {
  const Observations& observations = content.observations;
  const int64_t num_updates = observations.history == nullptr ? 0 : observations.history->num_updates;
  return WriteHead({.state = *content.state,
                    .create_time = identity.create_time,
                    .name = identity.name,
                    .uid = identity.uid,
                    .num_remembered = num_remembered,
                    .shadow_version = observations.shadow == nullptr ? kNoVersion : observations.shadow_version,
                    .observed_version = observations.observed == nullptr ? kNoVersion : observations.observed_version,
                    .num_updates = num_updates,
                    .num_collection_rows = NumCollectionRows(content.collections),
                    .observed_before_version =
                        observations.observed_before == nullptr ? kNoVersion : observations.observed_before_version});
}

// Whether the ring holds the last of `num_remembered` requests and nothing else. `rows` by sequence.
bool IsWhole(const RequestRing& ring, const std::vector<StoredRequest>& rows, int64_t num_remembered) {
  const int64_t first = std::max<int64_t>(0, num_remembered - ring.num_slots);
  if (static_cast<int64_t>(rows.size()) != num_remembered - first) return false;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].sequence != first + static_cast<int64_t>(i)) return false;
  }
  return true;
}

}  // namespace

void WriteNewSession(const SessionIdentity& identity, const SessionContent& content, SessionWrite& write) {
  write.head = HeadOf(identity, content, /*num_remembered=*/0);
  write.current.push_back(
      {VectorKind::kParameters, content.state->parameters_version, WriteParameters(*content.state->parameters)});
  if (content.state->running != nullptr) {
    write.current.push_back(
        {VectorKind::kRunning, content.state->running_version, WriteStatistics(*content.state->running)});
  }
}

void WriteChange(const SessionIdentity& identity, const SessionContent& before, const SessionContent& after,
                 int64_t num_remembered, SessionWrite& write) {
  write.head = HeadOf(identity, after, num_remembered);
  WriteVectors(before, after, write);
  if (after.observations.history != before.observations.history) {
    WriteHistory(identity.uid, before.observations.history.get(), *after.observations.history, write);
  }
  if (after.snapshots != before.snapshots) WriteSnapshots(identity.uid, *before.snapshots, *after.snapshots, write);
  if (after.collections != before.collections) {
    WriteCollections(identity.uid, before.collections, *after.collections, write);
  }
}

absl::StatusOr<RestoredSession> ReadSession(const StoredPart& session, const StoredSession& stored) {
  auto head = ReadHead(session, stored.head);
  if (!head.ok()) return head.status();
  const auto length = static_cast<size_t>(head->state.config.num_features);
  StoredVectors vectors;
  for (const StoredVector& vector : stored.current) {
    if (absl::Status status = ReadVector(session, vector, length, vectors); !status.ok()) return status;
  }
  Observations observations;
  absl::Status status = FillIn(session, vectors, *head, head->state, observations);
  if (!status.ok()) return status;
  ReadHistory(session, stored, head->num_updates, length, observations);
  auto snapshots = std::make_shared<const Snapshots>(ReadSnapshots(session, stored, head->state));
  auto collections = ReadCollections(session, stored, head->num_collection_rows, head->state.config.num_features);
  return RestoredSession{
      .identity = {.name = stored.head.name, .uid = stored.head.uid, .create_time = head->create_time},
      .content = {.state = std::make_shared<const SessionState>(std::move(head->state)),
                  .observations = std::move(observations),
                  .snapshots = std::move(snapshots),
                  .collections = std::move(collections)},
      .num_remembered = head->num_remembered};
}

absl::StatusOr<RestoredMemory> ReadMemory(const StoredPart& session, const RequestRing& ring,
                                          const StoredMemory& stored, const SessionState& newest,
                                          int64_t num_remembered) {
  const StoredPart part = session.Of("remembered request");
  if (num_remembered != kNotRecorded && !IsWhole(ring, stored.requests, num_remembered)) {
    return StoredDataLost(part, absl::StrCat("of the last ", ring.num_slots, " of ", num_remembered,
                                             ", some are missing or others are there"));
  }
  RestoredMemory memory{.num_remembered = stored.requests.empty() ? 0 : stored.requests.back().sequence + 1};
  StoredVectors& vectors = memory.vectors;
  for (const StoredVector& vector : stored.kept) {
    const auto length = static_cast<size_t>(newest.config.num_features);
    absl::Status status = ReadVector(session, vector, length, vectors);
    if (!status.ok()) return status;
  }
  vectors.parameters[newest.parameters_version] = newest.parameters;
  if (newest.running != nullptr) vectors.running[newest.running_version] = newest.running;
  absl::Status lost;
  ReadRequests(
      part, ring, stored.requests,
      [&](const StoredRequest& row, RememberedRequest request) {
        if (auto* forward = std::get_if<ForwardAnswer>(&request.answer)) FillIn(vectors, *forward);
        memory.requests.emplace_back(row.request_id, std::move(request));
      },
      [&](absl::Status damage) { lost.Update(damage); });
  if (!lost.ok()) return lost;
  return memory;
}

}  // namespace normserve
