#include "tests/fault/store_scenario.h"

#include <algorithm>
#include <future>

#include "absl/strings/str_cat.h"
#include "tests/unit/store/store_calls.h"

namespace normserve {
namespace {

// Long bytes by their hash: texts are compared, and shown where they differ.
std::string Digest(const std::string& bytes) {
  return absl::StrCat(bytes.size(), " bytes, hash ", std::hash<std::string>()(bytes));
}

void AppendVectors(std::string& text, const char* what, const std::vector<StoredVector>& vectors) {
  for (const StoredVector& vector : vectors) {
    absl::StrAppend(&text, "\n  ", what, " ", static_cast<int>(vector.kind), " ", vector.version, ": ",
                    Digest(vector.data));
  }
}

void AppendRequest(std::string& text, const StoredRequest& request) {
  absl::StrAppend(&text, "\n  request ", request.slot, " ", request.sequence, " ", request.request_id, " ",
                  request.record);
}

bool IsBefore(const StoredVector& left, const StoredVector& right) {
  return std::pair(left.kind, left.version) < std::pair(right.kind, right.version);
}

void ApplyToSession(const SessionWrite& write, WholeSession& session) {
  session.head.uid = write.uid;
  if (write.kind == SessionWrite::Kind::kCreate) session.head.name = write.name;
  session.head.sequence = write.sequence;
  session.head.record = write.head;
  for (const StoredVector& vector : write.current) {
    std::erase_if(session.current, [&](const auto& old) { return old.kind == vector.kind; });
    if (!vector.data.empty()) session.current.push_back(vector);
  }
  for (const StoredVector& vector : write.kept) session.kept.push_back(vector);
  for (const auto& [kind, version] : write.dropped) {
    std::erase_if(session.kept, [&](const auto& old) { return old.kind == kind && old.version == version; });
  }
  std::sort(session.current.begin(), session.current.end(), IsBefore);
  std::sort(session.kept.begin(), session.kept.end(), IsBefore);
  if (write.request.has_value()) {
    std::erase_if(session.requests, [&](const auto& old) { return old.slot == write.request->slot; });
    session.requests.push_back(*write.request);
  }
  std::erase_if(session.snapshots, [&](const auto& old) { return old.name == write.deleted_snapshot; });
  if (write.snapshot.has_value()) session.snapshots.push_back(*write.snapshot);
  std::sort(session.snapshots.begin(), session.snapshots.end(),
            [](const auto& left, const auto& right) { return left.name < right.name; });
  session.head.num_snapshots = session.snapshots.size();
  for (const StoredPoint& point : write.history) {
    std::erase_if(session.history, [&](const auto& old) { return old.slot == point.slot; });
    session.history.push_back(point);
  }
  std::sort(session.history.begin(), session.history.end(),
            [](const auto& left, const auto& right) { return left.slot < right.slot; });
}

}  // namespace

void StoreContents::Apply(const StoreWrite& write) {
  for (const SessionWrite& change : write.sessions) {
    if (change.kind == SessionWrite::Kind::kDelete) {
      sessions.erase(change.uid);
    } else {
      ApplyToSession(change, sessions[change.uid]);
    }
  }
  if (write.server_request.has_value()) server_requests[write.server_request->slot] = *write.server_request;
}

std::string StoreContents::Text() const {
  std::string text;
  for (const auto& [uid, session] : sessions) {
    absl::StrAppend(&text, "\nsession ", uid, " ", session.head.name, " ", session.head.sequence, " ",
                    session.head.record, " ", session.head.num_snapshots);
    AppendVectors(text, "current", session.current);
    AppendVectors(text, "kept", session.kept);
    for (const StoredRequest& request : session.requests) AppendRequest(text, request);
    for (const StoredSnapshot& snapshot : session.snapshots) {
      absl::StrAppend(&text, "\n  snapshot ", snapshot.name, ": ", Digest(snapshot.record));
    }
    for (const StoredPoint& point : session.history) {
      absl::StrAppend(&text, "\n  point ", point.slot, ": ", Digest(point.record));
    }
  }
  absl::StrAppend(&text, "\nserver");
  for (const auto& [slot, request] : server_requests) AppendRequest(text, request);
  return text;
}

absl::StatusOr<StoreContents> ReadContents(StateStore& store) {
  StoreContents contents;
  const auto heads = store.ListSessions();
  if (!heads.ok()) return heads.status();
  for (const StoredHead& head : *heads) {
    auto session = store.Load(head.uid);
    if (!session.ok()) return session.status();
    if (session->head.name != head.name || session->head.sequence != head.sequence ||
        session->head.record != head.record || session->head.epoch != head.epoch ||
        session->head.num_snapshots != head.num_snapshots) {
      return absl::InternalError(absl::StrCat(head.uid, " is listed otherwise than it is loaded"));
    }
    auto memory = store.LoadMemory(head.uid);
    if (!memory.ok()) return memory.status();
    contents.sessions[head.uid] = {*std::move(session), *std::move(memory)};
  }
  const auto requests = store.ListServerRequests();
  if (!requests.ok()) return requests.status();
  for (const StoredRequest& request : *requests) contents.server_requests[request.slot] = request;
  return contents;
}

SessionWrite StoreScenario::Make(SessionWrite::Kind kind, const std::string& uid) {
  const auto found = acknowledged_.sessions.find(uid);
  const int64_t before = found == acknowledged_.sessions.end() ? 0 : found->second.head.sequence;
  const int64_t serial = ++serial_;
  SessionWrite write{.kind = kind,
                     .uid = uid,
                     .epoch = kind == SessionWrite::Kind::kCreate ? 1 : epochs_[uid],
                     .sequence = before + 1,
                     .head = absl::StrCat("head ", serial)};
  if (kind == SessionWrite::Kind::kDelete) return write;
  // From less than a page to some pages, larger and smaller in turn.
  const size_t size_bytes = serial % 3 == 0 ? 9000 : serial % 3 == 1 ? 100 : 2500;
  write.current = {{VectorKind::kRunning, serial, Pattern(absl::StrCat("running ", serial), size_bytes)}};
  write.request =
      StoredRequest{write.sequence % 3, write.sequence, absl::StrCat("id ", serial), absl::StrCat("answer ", serial)};
  return write;
}

SessionWrite StoreScenario::Create(const std::string& uid, const std::string& name) {
  SessionWrite write = Make(SessionWrite::Kind::kCreate, uid);
  write.name = name;
  write.current.push_back({VectorKind::kParameters, serial_, Pattern(absl::StrCat("parameters ", serial_), 600)});
  epochs_[uid] = 1;
  return write;
}

StoreWrite StoreScenario::One(SessionWrite write) const {
  StoreWrite one{.durability = durability_};
  one.sessions.push_back(std::move(write));
  return one;
}

void StoreScenario::Put(StateStore& store, std::vector<StoreWrite> writes) {
  std::vector<std::future<absl::Status>> answers;
  for (const StoreWrite& write : writes) answers.push_back(StartWrite(store, write));
  std::vector<StoreWrite> refused;
  bool any = false;
  for (size_t i = 0; i < writes.size(); ++i) {
    if (answers[i].get().ok()) {
      acknowledged_.Apply(writes[i]);
      ++num_acknowledged_;
      any = true;
    } else {
      refused.push_back(std::move(writes[i]));
      ++num_refused_;
    }
  }
  if (any) doubtful_.clear();
  for (StoreWrite& write : refused) doubtful_.push_back(std::move(write));
}

void StoreScenario::Adopt(const StoreContents& contents) {
  acknowledged_ = contents;
  doubtful_.clear();
  epochs_.clear();
  for (const auto& [uid, session] : contents.sessions) epochs_[uid] = session.head.epoch;
}

absl::Status StoreScenario::RunHalf(StateStore& store, int half) {
  const auto contents = ReadContents(store);
  if (!contents.ok()) return contents.status();
  if (const absl::Status status = Check(*contents); !status.ok()) return status;
  Adopt(*contents);
  const auto change = [this](const std::string& uid) { return Make(SessionWrite::Kind::kChange, uid); };

  if (half == 0) {
    StoreWrite create = One(Create("a", "layer/a"));
    create.server_request = StoredRequest{0, 1, "create a", "made a"};
    Put(store, {std::move(create)});
    Put(store, {One(Create("b", "layer/b"))});
    // Three of different sessions in one transaction, or nearly.
    Put(store, {One(Create("c", "layer/c")), One(change("a")), One(change("b"))});
    for (int i = 0; i < 4; ++i) {
      SessionWrite write = change("a");
      write.kept = {{VectorKind::kRunning, serial_ * 10, Pattern(absl::StrCat("kept ", serial_), 1500)}};
      if (i == 1) write.snapshot = StoredSnapshot{"first", Pattern(absl::StrCat("snapshot ", serial_), 5000)};
      if (i == 2) write.current.push_back({VectorKind::kShadow, serial_, Pattern("shadow", 5000)});
      write.history = {{i % 2, Pattern(absl::StrCat("batch ", serial_), 1800)},
                       {10 + i, absl::StrCat("sum ", serial_)}};
      Put(store, {One(std::move(write))});
    }
    return absl::OkStatus();
  }
  SessionWrite write = change("a");
  // All that is kept goes, and the shadow with it.
  if (const auto a = acknowledged_.sessions.find("a"); a != acknowledged_.sessions.end()) {
    for (const StoredVector& kept : a->second.kept) write.dropped.emplace_back(kept.kind, kept.version);
  }
  write.current.push_back({VectorKind::kShadow, serial_, ""});
  write.snapshot = StoredSnapshot{"second", Pattern(absl::StrCat("snapshot ", serial_), 100)};
  Put(store, {One(std::move(write))});
  StoreWrite both = One(change("a"));
  both.sessions[0].deleted_snapshot = "first";
  both.sessions.push_back(change("b"));
  both.server_request = StoredRequest{1, 2, "set mode", "both"};
  Put(store, {std::move(both)});
  StoreWrite deletion = One(Make(SessionWrite::Kind::kDelete, "c"));
  deletion.server_request = StoredRequest{0, 3, "delete c", "gone"};
  Put(store, {std::move(deletion)});
  Put(store, {One(Create("d", "layer/c")), One(change("b"))});
  Put(store, {One(change("d"))});
  return absl::OkStatus();
}

absl::Status StoreScenario::Check(const StoreContents& contents) const {
  const std::string text = contents.Text();
  if (text == acknowledged_.Text()) return absl::OkStatus();
  // Those queued together may be there in part; those of different calls were answered before the next was made.
  for (size_t first = 0; first < doubtful_.size(); ++first) {
    StoreContents allowed = acknowledged_;
    for (size_t last = first; last < std::min(first + 3, doubtful_.size()); ++last) {
      allowed.Apply(doubtful_[last]);
      if (text == allowed.Text()) return absl::OkStatus();
    }
  }
  return absl::InternalError(absl::StrCat("holds neither what was acknowledged nor that and what was in flight:", text,
                                          "\nacknowledged:", acknowledged_.Text()));
}

std::vector<StoreWrite> StoreScenario::FollowingWrites(const StoreContents& contents) {
  Adopt(contents);
  std::vector<StoreWrite> writes;
  for (const auto& [uid, session] : contents.sessions) {
    writes.push_back(One(Make(SessionWrite::Kind::kChange, uid)));
  }
  writes.push_back(One(Create("new", "layer/new")));
  return writes;
}

}  // namespace normserve
