#include "server/session/records.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <bit>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/session/session_errors.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

static_assert(std::endian::native == std::endian::little, "records are written as they lie in memory");

constexpr char kFirstVersion = 1;
// The newest of heads, requests and snapshots.
constexpr char kHeadVersion = 6;
constexpr char kRequestVersion = 2;
constexpr char kSnapshotVersion = 4;
// Of moments, by themselves, in a part and in a result.
constexpr char kMomentsVersion = 2;
constexpr const char* kOfAnotherRow = "it is the record of another row";
constexpr size_t kChecksumBytes = sizeof(uint64_t);

class RecordWriter {
 public:
  explicit RecordWriter(char version = kFirstVersion) { bytes_.push_back(version); }

  RecordWriter& Int(int64_t value) { return Raw(&value, sizeof(value)); }
  template <typename Enum>
  RecordWriter& Choice(Enum value) {
    return Int(static_cast<int64_t>(value));
  }
  RecordWriter& Double(double value) { return Raw(&value, sizeof(value)); }
  RecordWriter& Text(absl::string_view text) {
    Int(static_cast<int64_t>(text.size()));
    return Raw(text.data(), text.size());
  }
  template <typename T>
  RecordWriter& Vector(const std::vector<T>& values) {
    Int(static_cast<int64_t>(values.size()));
    return Raw(values.data(), values.size() * sizeof(T));
  }
  RecordWriter& Time(absl::Time time) { return Int(absl::ToUnixNanos(time)); }

  std::string Finish() {
    const uint64_t checksum = XXH3_64bits(bytes_.data(), bytes_.size());
    Raw(&checksum, sizeof(checksum));
    return std::move(bytes_);
  }

 private:
  RecordWriter& Raw(const void* data, size_t size_bytes) {
    bytes_.append(static_cast<const char*>(data), size_bytes);
    return *this;
  }

  std::string bytes_;
};

// Reads zeros and empty vectors once something was wrong; Finish says so.
class RecordReader {
 public:
  explicit RecordReader(absl::string_view record, char newest_version = kFirstVersion) {
    if (record.size() < 1 + kChecksumBytes) {
      wrong_ = "it is too short";
      return;
    }
    const absl::string_view body = record.substr(0, record.size() - kChecksumBytes);
    uint64_t checksum;
    std::memcpy(&checksum, record.data() + body.size(), sizeof(checksum));
    if (checksum != XXH3_64bits(body.data(), body.size())) {
      wrong_ = "its checksum is wrong";
    } else if (body[0] < kFirstVersion || body[0] > newest_version) {
      wrong_ = "it was written by a newer version";
    } else {
      version_ = body[0];
      rest_ = body.substr(1);
    }
  }

  char version() const { return version_; }

  int64_t Int() {
    int64_t value = 0;
    Raw(&value, sizeof(value));
    return value;
  }
  // One of 0 up to `last`.
  template <typename Enum>
  Enum Choice(Enum last) {
    const int64_t value = Int();
    if (value < 0 || value > static_cast<int64_t>(last)) {
      Spoil("a choice in it is not known");
      return last;
    }
    return static_cast<Enum>(value);
  }
  bool Bool() { return Int() != 0; }
  double Double() {
    double value = 0;
    Raw(&value, sizeof(value));
    return value;
  }
  std::string Text() {
    const size_t size = Length(1);
    std::string text(rest_.substr(0, size));
    rest_.remove_prefix(size);
    return text;
  }
  template <typename T>
  std::vector<T> Vector() {
    std::vector<T> values(Length(sizeof(T)));
    Raw(values.data(), values.size() * sizeof(T));
    return values;
  }
  absl::Time Time() { return absl::FromUnixNanos(Int()); }

  absl::Status Finish(const StoredPart& what) {
    if (wrong_ == nullptr && !rest_.empty()) Spoil("it is too long");
    return wrong_ == nullptr ? absl::OkStatus() : StoredDataLost(what, wrong_);
  }

  // Nothing more is read; the first word of it stays.
  void Spoil(const char* wrong) {
    if (wrong_ == nullptr) wrong_ = wrong;
    rest_ = {};
  }

 private:
  size_t Length(size_t element_bytes) {
    const int64_t length = Int();
    if (length >= 0 && static_cast<uint64_t>(length) <= rest_.size() / element_bytes)
      return static_cast<size_t>(length);
    Spoil("a length in it is wrong");
    return 0;
  }
  void Raw(void* to, size_t size_bytes) {
    if (size_bytes > rest_.size()) return Spoil("it ends early");
    if (size_bytes > 0) std::memcpy(to, rest_.data(), size_bytes);
    rest_.remove_prefix(size_bytes);
  }

  char version_ = kFirstVersion;
  absl::string_view rest_;
  const char* wrong_ = nullptr;
};

void WriteConfig(const SessionConfig& config, RecordWriter& to) {
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

SessionConfig ReadConfig(RecordReader& from) {
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

void WriteState(const SessionState& state, RecordWriter& to) {
  WriteConfig(state.config, to);
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
  state.config = ReadConfig(from);
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

void WriteDescription(const SessionDescription& description, RecordWriter& to) {
  WriteConfig(description.config, to);
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
  description.config = ReadConfig(from);
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

void WriteQuantiles(const std::optional<Quantiles>& quantiles, RecordWriter& to) {
  to.Choice(quantiles.has_value());
  if (!quantiles.has_value()) return;
  to.Double(quantiles->min)
      .Double(quantiles->low)
      .Double(quantiles->median)
      .Double(quantiles->high)
      .Double(quantiles->max);
}

std::optional<Quantiles> ReadQuantiles(RecordReader& from) {
  if (!from.Bool()) return std::nullopt;
  Quantiles quantiles;
  for (double* value : {&quantiles.min, &quantiles.low, &quantiles.median, &quantiles.high, &quantiles.max}) {
    *value = from.Double();
  }
  return quantiles;
}

void WriteSummary(const HistorySummary& summary, RecordWriter& to) {
  WriteQuantiles(summary.running_mean, to);
  WriteQuantiles(summary.running_variance, to);
  WriteQuantiles(summary.batch_mean, to);
  WriteQuantiles(summary.batch_variance, to);
  to.Choice(summary.relative_gap.has_value());
  if (summary.relative_gap.has_value()) to.Double(*summary.relative_gap);
}

HistorySummary ReadSummary(RecordReader& from) {
  HistorySummary summary;
  summary.running_mean = ReadQuantiles(from);
  summary.running_variance = ReadQuantiles(from);
  summary.batch_mean = ReadQuantiles(from);
  summary.batch_variance = ReadQuantiles(from);
  if (from.Bool()) summary.relative_gap = from.Double();
  return summary;
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

RecordWriter& WriteMomentsFields(const Moments& moments, RecordWriter& to) {
  return to.Int(moments.count).Vector(moments.mean).Vector(moments.m2).Int(moments.num_samples);
}

Moments ReadMomentsFields(RecordReader& from) {
  Moments moments{.count = from.Int()};
  moments.mean = from.Vector<double>();
  moments.m2 = from.Vector<double>();
  if (from.version() >= 2) moments.num_samples = from.Int();
  return moments;
}

// `value`, unless the reader found something wrong.
template <typename T>
absl::StatusOr<T> Finished(T value, RecordReader& from, const StoredPart& what) {
  if (absl::Status status = from.Finish(what); !status.ok()) return status;
  return value;
}

}  // namespace

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

std::string WriteParameters(const AffineParameters& parameters) {
  return RecordWriter().Vector(parameters.weight).Vector(parameters.bias).Finish();
}

absl::StatusOr<AffineParameters> ReadParameters(const StoredPart& what, absl::string_view record) {
  RecordReader from(record);
  AffineParameters parameters;
  parameters.weight = from.Vector<float>();
  parameters.bias = from.Vector<float>();
  return Finished(std::move(parameters), from, what);
}

std::string WriteStatistics(const NormalizationStatistics& statistics) {
  return RecordWriter().Vector(statistics.mean).Vector(statistics.variance).Finish();
}

absl::StatusOr<NormalizationStatistics> ReadStatistics(const StoredPart& what, absl::string_view record) {
  RecordReader from(record);
  NormalizationStatistics statistics;
  statistics.mean = from.Vector<double>();
  statistics.variance = from.Vector<double>();
  return Finished(std::move(statistics), from, what);
}

std::string WriteMoments(const Moments& moments) {
  RecordWriter to(kMomentsVersion);
  return WriteMomentsFields(moments, to).Finish();
}

absl::StatusOr<Moments> ReadMoments(const StoredPart& what, absl::string_view record) {
  RecordReader from(record, kMomentsVersion);
  Moments moments = ReadMomentsFields(from);
  return Finished(std::move(moments), from, what);
}

std::string WriteObserved(const Moments& moments, const std::vector<ObservedPart>& parts) {
  std::vector<uint64_t> words;
  for (const ObservedPart& part : parts) {
    words.insert(words.end(), {part.id.low, part.id.high, part.contents.low, part.contents.high});
  }
  RecordWriter to(kMomentsVersion);
  return WriteMomentsFields(moments, to).Vector(words).Finish();
}

absl::StatusOr<ObservedMoments> ReadObserved(const StoredPart& what, absl::string_view record) {
  RecordReader from(record, kMomentsVersion);
  ObservedMoments observed{.moments = ReadMomentsFields(from)};
  const auto words = from.Vector<uint64_t>();
  if (words.size() % 4 != 0) from.Spoil("a length in it is wrong");
  for (size_t i = 0; i + 4 <= words.size(); i += 4) {
    observed.parts.push_back({.id = {words[i], words[i + 1]}, .contents = {words[i + 2], words[i + 3]}});
  }
  return Finished(std::move(observed), from, what);
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
  RecordWriter to(kMomentsVersion);
  to.Text(uid).Text(collection).Int(result.generation).Int(result.order).Int(result.num_parts);
  WriteMomentsFields(result.merged, to).Vector(result.variance_within).Vector(result.variance_between);
  to.Vector(result.before.mean).Vector(result.before.variance).Int(result.batches_before);
  return to.Vector(result.after.mean).Vector(result.after.variance).Int(result.batches_after).Finish();
}

absl::StatusOr<CollectionResult> ReadResult(const StoredPart& what, absl::string_view uid,
                                            const StoredCollectionRow& row) {
  RecordReader from(row.record, kMomentsVersion);
  if (from.Text() != uid || from.Text() != row.collection) from.Spoil(kOfAnotherRow);
  CollectionResult result;
  result.generation = from.Int();
  result.order = from.Int();
  result.num_parts = from.Int();
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

StoredPoint WritePoint(absl::string_view uid, size_t slot, const HistoryPoint& point) {
  RecordWriter to;
  to.Text(uid).Int(static_cast<int64_t>(slot)).Int(point.update).Int(point.generation).Int(point.lineage);
  to.Int(point.num_batches_tracked).Time(point.time).Int(point.count).Int(point.num_samples);
  to.Choice(point.batch != nullptr);
  if (point.batch != nullptr) to.Vector(point.batch->mean).Vector(point.batch->m2);
  to.Choice(point.summary != nullptr);
  if (point.summary != nullptr) WriteSummary(*point.summary, to);
  return {.slot = static_cast<int64_t>(slot), .record = to.Finish()};
}

absl::StatusOr<HistoryPoint> ReadPoint(const StoredPart& what, absl::string_view uid, const StoredPoint& row) {
  RecordReader from(row.record);
  if (from.Text() != uid || from.Int() != row.slot) from.Spoil(kOfAnotherRow);
  HistoryPoint point;
  point.update = from.Int();
  point.generation = from.Int();
  point.lineage = from.Int();
  point.num_batches_tracked = from.Int();
  point.time = from.Time();
  point.count = from.Int();
  point.num_samples = from.Int();
  if (from.Bool()) {
    Moments batch{.count = point.count};
    batch.mean = from.Vector<double>();
    batch.m2 = from.Vector<double>();
    batch.num_samples = point.num_samples;
    point.batch = std::make_shared<const Moments>(std::move(batch));
  }
  if (from.Bool()) point.summary = std::make_shared<const HistorySummary>(ReadSummary(from));
  return Finished(std::move(point), from, what);
}

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
