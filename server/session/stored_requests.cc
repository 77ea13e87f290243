#include "server/session/stored_requests.h"

#include <unordered_map>
#include <utility>
#include <variant>

#include "server/session/records.h"
#include "server/session/stored_state.h"

namespace normserve {
namespace {

void WriteDescription(const SessionDescription& description, RecordWriter& to) {
  WriteConfigFields(description.config, to);
  to.Text(description.name)
      .Text(description.uid)
      .Choice(description.mode)
      .Int(description.generation)
      .Int(description.num_batches_tracked)
      .Time(description.create_time)
      .Time(description.update_time)
      .Int(description.num_snapshots);
}

SessionDescription ReadDescription(RecordReader& from) {
  SessionDescription description;
  description.config = ReadConfigFields(from);
  description.name = from.Text();
  description.uid = from.Text();
  description.mode = from.Choice(Mode::kShadow);
  description.generation = from.Int();
  description.num_batches_tracked = from.Int();
  description.create_time = from.Time();
  description.update_time = from.Time();
  description.num_snapshots = from.Int();
  return description;
}

void WriteAnswer(const SessionDescription& description, RecordWriter& to) { WriteDescription(description, to); }

void WriteAnswer(const ForwardAnswer& answer, RecordWriter& to) {
  to.Int(answer.generation)
      .Int(answer.snapshot_generation)
      .Int(answer.num_batches_tracked)
      .Choice(answer.normalized_with)
      .Choice(answer.update)
      .Int(answer.parameters == nullptr ? kNoVersion : answer.parameters_version)
      .Int(answer.running == nullptr ? kNoVersion : answer.running_version);
}

void WriteAnswer(const Deletion& deletion, RecordWriter& to) { to.Text(deletion.uid).Int(deletion.generation); }

void WriteAnswer(const Deletions& deletions, RecordWriter& to) {
  to.Int(static_cast<int64_t>(deletions.size()));
  for (const Deletion& deletion : deletions) to.Text(deletion.name).Text(deletion.uid).Int(deletion.generation);
}

void WriteAnswer(const SnapshotDescription& snapshot, RecordWriter& to) {
  to.Text(snapshot.session)
      .Text(snapshot.uid)
      .Text(snapshot.name)
      .Int(snapshot.generation)
      .Int(snapshot.num_batches_tracked)
      .Time(snapshot.create_time)
      .Int(snapshot.size_bytes);
}

void WriteAnswer(const ObservationAnswer& answer, RecordWriter& to) {
  to.Text(answer.session).Text(answer.uid).Int(answer.generation).Int(answer.count);
}

void WriteAnswer(const GatheringAnswer& answer, RecordWriter& to) {
  to.Text(answer.session)
      .Text(answer.uid)
      .Int(answer.generation)
      .Choice(answer.key.first)
      .Text(answer.key.second)
      .Int(answer.num_parts)
      .Int(answer.order)
      .Choice(answer.is_committed);
}

void WriteAnswer(const ImportAnswer& answer, RecordWriter& to) {
  to.Int(static_cast<int64_t>(answer.parts.size()));
  for (const ImportAnswer::Part& part : answer.parts) {
    to.Text({part.uid.data(), part.uid.size()}).Int(part.generation).Choice(part.action);
  }
}

ImportAnswer ReadImportAnswer(RecordReader& from) {
  ImportAnswer answer;
  const int64_t num_parts = from.Int();
  for (int64_t i = 0; i < num_parts; ++i) {
    ImportAnswer::Part part;
    const std::string uid = from.Text();
    if (uid.size() != part.uid.size()) {
      from.Spoil("a uid in it is not legal");
      break;
    }
    uid.copy(part.uid.data(), part.uid.size());
    part.generation = from.Int();
    part.action = from.Choice(ImportAction::kSkipped);
    answer.parts.push_back(part);
  }
  return answer;
}

Deletions ReadDeletions(RecordReader& from) {
  Deletions deletions;
  const int64_t size = from.Int();
  for (int64_t i = 0; i < size; ++i) {
    Deletion deletion;
    deletion.name = from.Text();
    deletion.uid = from.Text();
    deletion.generation = from.Int();
    if (deletion.name.empty()) break;  // no session's is: the record is damaged
    deletions.push_back(std::move(deletion));
  }
  return deletions;
}

// What a record calls the kinds of answers.
constexpr int64_t kDeletionsKind = 6;
constexpr int64_t kImportKind = 8;
int64_t KindOf(const Answer& answer) {
  if (std::holds_alternative<Deletions>(answer)) return kDeletionsKind;
  if (std::holds_alternative<ImportAnswer>(answer)) return kImportKind;
  return static_cast<int64_t>(answer.index());
}

Answer ReadAnswer(int64_t kind, RecordReader& from) {
  if (kind == 0) return ReadDescription(from);
  if (kind == 1) {
    ForwardAnswer answer;
    answer.generation = from.Int();
    answer.snapshot_generation = from.Int();
    answer.num_batches_tracked = from.Int();
    answer.normalized_with = from.Choice(NormalizedWith::kBlend);
    answer.update = from.Choice(Update::kShadow);
    answer.parameters_version = from.Int();
    answer.running_version = from.Int();
    return answer;
  }
  if (kind == 2) {
    Deletion deletion;
    deletion.uid = from.Text();
    deletion.generation = from.Int();
    return deletion;
  }
  if (kind == kImportKind) return ReadImportAnswer(from);
  if (kind == 4) {
    ObservationAnswer answer;
    answer.session = from.Text();
    answer.uid = from.Text();
    answer.generation = from.Int();
    answer.count = from.Int();
    return answer;
  }
  if (kind == 5) {
    GatheringAnswer answer;
    answer.session = from.Text();
    answer.uid = from.Text();
    answer.generation = from.Int();
    answer.key.first = from.Choice(CollectionKind::kCalibration);
    answer.key.second = from.Text();
    answer.num_parts = from.Int();
    answer.order = from.Int();
    answer.is_committed = from.Bool();
    return answer;
  }
  if (kind == kDeletionsKind) return ReadDeletions(from);
  if (kind != 3) from.Spoil("what it answers is not known");
  SnapshotDescription snapshot;
  snapshot.session = from.Text();
  snapshot.uid = from.Text();
  snapshot.name = from.Text();
  snapshot.generation = from.Int();
  snapshot.num_batches_tracked = from.Int();
  snapshot.create_time = from.Time();
  snapshot.size_bytes = from.Int();
  return snapshot;
}

}  // namespace

StoredRequest WriteRequest(const RequestRing& ring, int64_t sequence, const std::string& request_id,
                           const RememberedRequest& request) {
  RecordWriter to(kRequestVersion);
  to.Text(ring.uid).Text(request_id).Int(sequence);
  to.Int(static_cast<int64_t>(request.fingerprint.low)).Int(static_cast<int64_t>(request.fingerprint.high));
  to.Int(KindOf(request.answer));
  std::visit([&to](const auto& answer) { WriteAnswer(answer, to); }, request.answer);
  return {.slot = sequence % ring.num_slots, .sequence = sequence, .request_id = request_id, .record = to.Finish()};
}

absl::StatusOr<RememberedRequest> ReadRequest(const StoredPart& what, const RequestRing& ring,
                                              const StoredRequest& row) {
  RecordReader from(row.record, kRequestVersion);
  if (row.sequence < 0 || row.slot != row.sequence % ring.num_slots)
    from.Spoil("it is not in the slot of its sequence");
  if (from.version() >= 2 && (from.Text() != ring.uid || from.Text() != row.request_id || from.Int() != row.sequence)) {
    from.Spoil(kOfAnotherRow);
  }
  RememberedRequest request;
  request.fingerprint.low = static_cast<uint64_t>(from.Int());
  request.fingerprint.high = static_cast<uint64_t>(from.Int());
  request.answer = ReadAnswer(from.Int(), from);
  return Finished(std::move(request), from, what);
}

void ReadRequests(const StoredPart& what, const RequestRing& ring, const std::vector<StoredRequest>& rows,
                  absl::FunctionRef<void(const StoredRequest& row, RememberedRequest request)> take,
                  absl::FunctionRef<void(absl::Status damage)> lost) {
  std::vector<std::pair<const StoredRequest*, RememberedRequest>> intact;
  std::unordered_map<std::string, int64_t> newest;
  for (const StoredRequest& row : rows) {
    auto request = ReadRequest(what, ring, row);
    if (!request.ok()) {
      lost(request.status());
      continue;
    }
    newest[row.request_id] = row.sequence;
    intact.emplace_back(&row, *std::move(request));
  }
  for (auto& [row, request] : intact) {
    if (row->sequence == newest[row->request_id]) take(*row, std::move(request));
  }
}

}  // namespace normserve
