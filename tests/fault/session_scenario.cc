#include "tests/fault/session_scenario.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>

#include "absl/strings/str_cat.h"
#include "server/session/gathering.h"
#include "server/session/observation.h"
#include "tests/unit/server/answers.h"

namespace normserve {
namespace {

constexpr Fingerprint kBatch{.low = 1, .high = 2};
constexpr int kAttempts = 4;

// The client's second session of a name; see NameOf.
constexpr char kSecond[] = "narrow2";

// The name that the server knows a session of the client's under: a later one takes that of one deleted.
std::string NameOf(const std::string& session) { return session == kSecond ? "narrow" : session; }

// Rows of some pages, and of less than one.
int64_t WidthOf(const std::string& session) { return session == "narrow" || session == kSecond ? 3 : 300; }

template <typename T>
std::string Bits(const std::vector<T>& values) {
  return absl::StrCat(
      values.size(), ":",
      std::hash<std::string>()(std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T))));
}

std::string TextOf(const SessionDescription& answer) {
  return absl::StrCat("session ", answer.uid, " generation ", answer.generation, " mode ",
                      static_cast<int>(answer.mode), " batches ", answer.num_batches_tracked, " snapshots ",
                      answer.num_snapshots, " created ", absl::ToUnixNanos(answer.create_time), " updated ",
                      absl::ToUnixNanos(answer.update_time));
}

std::string TextOf(const ForwardAnswer& answer) {
  std::string text = absl::StrCat("forward ", answer.generation, " of ", answer.snapshot_generation, " batches ",
                                  answer.num_batches_tracked, " with ", static_cast<int>(answer.normalized_with),
                                  " update ", static_cast<int>(answer.update));
  absl::StrAppend(&text, answer.parameters == nullptr ? " dropped" : Bits(answer.parameters->weight));
  if (answer.running != nullptr) absl::StrAppend(&text, Bits(answer.running->mean), Bits(answer.running->variance));
  return text;
}

std::string TextOf(const Deletion& answer) { return absl::StrCat("deleted ", answer.uid, " at ", answer.generation); }

std::string TextOf(const SnapshotDescription& answer) {
  return absl::StrCat("snapshot ", answer.name, " of ", answer.uid, " generation ", answer.generation, " batches ",
                      answer.num_batches_tracked, " at ", absl::ToUnixNanos(answer.create_time));
}

std::string TextOf(const ObservationAnswer& answer) {
  return absl::StrCat("observed ", answer.count, " by ", answer.uid, " at ", answer.generation);
}

std::string TextOf(const GatheringAnswer& answer) {
  return absl::StrCat(CollectionText(answer.key), " of ", answer.uid, " has ", answer.num_parts, " parts, committed ",
                      answer.is_committed, " at ", answer.generation);
}

std::string TextOf(const Moments& moments) {
  return absl::StrCat(moments.count, " of ", moments.num_samples, " samples, mean ", Bits(moments.mean), " m2 ",
                      Bits(moments.m2));
}

std::string TextOf(const SessionState& state) {
  std::string text =
      absl::StrCat("mode ", static_cast<int>(state.mode), " batches ", state.num_batches_tracked, " generation ",
                   state.generation, " lineage ", state.lineage, " labels ", state.config.labels.size(), " epsilon ",
                   std::bit_cast<uint64_t>(state.config.epsilon), " weight ", Bits(state.parameters->weight), " bias ",
                   Bits(state.parameters->bias));
  if (state.running == nullptr) return text;
  return absl::StrCat(text, " mean ", Bits(state.running->mean), " variance ", Bits(state.running->variance));
}

// All but times, which a model has its own of.
std::string TextOf(const SessionContent& content) {
  std::string text = TextOf(*content.state);
  if (const auto& shadow = content.observations.shadow; shadow != nullptr) {
    absl::StrAppend(&text, "\n  shadow ", TextOf(*shadow));
  }
  if (const auto& observed = content.observations.observed; observed != nullptr) {
    absl::StrAppend(&text, "\n  observed ", TextOf(*observed), " in ", content.observations.observed_parts->size());
  }
  if (const auto& before = content.observations.observed_before; before != nullptr) {
    absl::StrAppend(&text, "\n  observed before ", TextOf(*before));
  }
  for (const auto& [key, collection] : content.collections == nullptr ? Collections() : *content.collections) {
    absl::StrAppend(&text, "\n  ", CollectionText(key), " of ", collection->count);
    for (const auto& part : collection->parts) absl::StrAppend(&text, "\n    ", part->id, ": ", TextOf(part->moments));
    if (collection->result != nullptr) absl::StrAppend(&text, " merged to ", TextOf(collection->result->merged));
  }
  for (const HistoryPoint& point : PointsOf(content.observations.history.get(), *content.state)) {
    absl::StrAppend(&text, "\n  point ", point.update, " generation ", point.generation, " count ", point.count);
    if (point.batch != nullptr)
      absl::StrAppend(&text, " mean ", Bits(point.batch->mean), " m2 ", Bits(point.batch->m2));
  }
  for (const auto& [name, snapshot] : *content.snapshots) {
    absl::StrAppend(&text, "\n  snapshot ", name, ": ", TextOf(*snapshot.state));
  }
  return text;
}

Moments BatchOf(int64_t value, int64_t num_features) {
  Moments moments{.count = 8, .num_samples = 1 + value % 8};
  for (int64_t c = 0; c < num_features; ++c) {
    moments.mean.push_back(static_cast<double>(value) / 3 + static_cast<double>(c));
    moments.m2.push_back(static_cast<double>(value) * 1.1 + 0.1 * static_cast<double>(c));
  }
  return moments;
}

std::vector<float> WeightsOf(int64_t value, int64_t num_features) {
  return std::vector<float>(static_cast<size_t>(num_features), static_cast<float>(value) / 7);
}

}  // namespace

// ---- The reader

void SessionReader::Attach(SessionRegistry* registry) {
  absl::MutexLock lock(&mutex_);
  registry_ = registry;
}

void SessionReader::Look() {
  absl::MutexLock lock(&mutex_);
  if (registry_ == nullptr) return;
  const auto page = registry_->List("", 0, "");
  for (const SessionDescription& session : page->sessions) {
    int64_t& generation = generations_[session.uid];
    generation = std::max(generation, session.generation);
  }
}

std::map<std::string, int64_t> SessionReader::generations() const {
  absl::MutexLock lock(&mutex_);
  return generations_;
}

// ---- The scenario

void SessionScenario::RunHalf(SessionRegistry& registry, int half) {
  const auto shadow = [](int64_t value) { return Call{.kind = Kind::kShadow, .session = "wide", .value = value}; };
  const auto train = [](const std::string& session, int64_t value) {
    return Call{.kind = Kind::kTrain, .session = session, .value = value};
  };
  const auto set_mode = [](const std::string& session, Mode mode) {
    return Call{.kind = Kind::kSetMode, .session = session, .value = static_cast<int64_t>(mode)};
  };
  const auto observe = [](const std::string& part, int64_t value) {
    return Call{.kind = Kind::kObserve, .session = "wide", .argument = part, .value = value};
  };
  const auto part = [](const std::string& merge, int64_t value) {
    return Call{.kind = Kind::kPart, .session = "wide", .argument = merge, .value = value};
  };
  const auto merge = [](const std::string& merge) {
    return Call{.kind = Kind::kMerge, .session = "wide", .argument = merge};
  };
  if (half == 0) {
    Run(registry, {.kind = Kind::kCreate, .session = "wide", .value = 1});
    Run(registry, {.kind = Kind::kCreate, .session = "narrow", .value = 2});
    Run(registry, train("wide", 1));
    Run(registry, train("wide", 2));
    Run(registry, {.kind = Kind::kSetParameters, .session = "wide", .value = 5});
    Run(registry, train("wide", 3));
    Run(registry, {.kind = Kind::kSnapshot, .session = "wide", .argument = "first"});
    RunTogether(registry, {train("wide", 4), train("narrow", 1), train("wide", 5), train("wide", 6)});
    Run(registry, set_mode("wide", Mode::kShadow));
    Run(registry, shadow(1));
    Run(registry, shadow(2));
    Run(registry, observe("morning", 1));
    RunTogether(registry, {part("round 1", 3), part("round 1", 2), part("round 2", 4)});
    Run(registry, merge("round 1"));
    return;
  }
  Run(registry, {.kind = Kind::kRestore, .session = "wide", .argument = "first"});
  Run(registry, train("wide", 7));
  Run(registry, observe("evening", 2));
  Run(registry, {.kind = Kind::kReset, .session = "wide", .argument = "night", .value = 3});
  Run(registry, part("round 2", 1));
  Run(registry, merge("round 2"));
  Run(registry, part("round 3", 5));
  Run(registry, {.kind = Kind::kSnapshot, .session = "wide", .argument = "second"});
  Run(registry, {.kind = Kind::kDeleteSnapshot, .session = "wide", .argument = "first"});
  Run(registry, {.kind = Kind::kClone, .session = "clone", .argument = "wide"});
  RunTogether(registry, {train("clone", 8), shadow(3), train("narrow", 9)});
  Run(registry, set_mode("narrow", Mode::kEval));
  Run(registry, {.kind = Kind::kDelete, .session = "narrow"});
  Run(registry, {.kind = Kind::kCreate, .session = kSecond, .value = 3});
  Run(registry, train(kSecond, 10));
  RepeatAll(registry);
}

void SessionScenario::Run(SessionRegistry& registry, Call call) {
  if (!Prepare(registry, call)) return;
  calls_.push_back(std::move(call));
  Send(registry, calls_.size() - 1);
}

void SessionScenario::RunTogether(SessionRegistry& registry, std::vector<Call> calls) {
  std::vector<std::pair<size_t, std::future<absl::StatusOr<Answered>>>> answers;
  for (Call& call : calls) {
    if (!Prepare(registry, call)) continue;
    answers.emplace_back(calls_.size(), Start(registry, NameOf(call.session), call));
    calls_.push_back(std::move(call));
  }
  for (auto& [call, answer] : answers) Log(call, answer.get());
  for (const auto& [call, answer] : answers) {
    if (calls_[call].outcome == Outcome::kUnknown) Send(registry, call);
  }
}

bool SessionScenario::Prepare(SessionRegistry& registry, Call& call) {
  call.request_id = absl::StrCat("request ", calls_.size());
  const std::string& known = call.kind == Kind::kClone ? call.argument : call.session;
  if (call.kind == Kind::kCreate) return true;
  const auto uid = uids_.find(known);
  if (uid == uids_.end()) return false;
  call.expected_uid = uid->second;
  if (call.kind != Kind::kClone) return true;
  const auto source = registry.Find(NameOf(known));
  if (source.ok()) call.expected_generation = (*source)->Snapshot()->generation;
  return source.ok();
}

void SessionScenario::Send(SessionRegistry& registry, size_t call) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Log(call, Issue(registry, NameOf(calls_[call].session), calls_[call]));
    if (calls_[call].outcome != Outcome::kUnknown) return;
  }
}

void SessionScenario::Log(size_t index, const absl::StatusOr<Answered>& answered) {
  Call& call = calls_[index];
  if (!answered.ok()) {
    const bool may_come = absl::IsUnavailable(answered.status());
    if (may_come) on_refused_(++num_refused_);
    call.outcome = may_come ? Outcome::kUnknown : Outcome::kRefusedForGood;
    if (!may_come && !MayFail(call, answered.status())) Break(call, answered.status().ToString());
    return;
  }
  call.outcome = Outcome::kAcknowledged;
  call.answer = answered->text;
  call.generation = answered->generation;
  acknowledged_.push_back(index);
  if (call.kind == Kind::kCreate || call.kind == Kind::kClone) uids_[call.session] = answered->uid;
}

// Only because of a call before it that was not acknowledged, or of a deletion.
bool SessionScenario::MayFail(const Call& call, const absl::Status& status) const {
  const bool deleted = MayHaveBeen(Kind::kDelete, call.session);
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      if (call.kind == Kind::kClone) return MayHaveBeen(Kind::kDelete, call.argument);
      if (deleted) return true;
      if (call.kind == Kind::kRestore && MayHaveBeen(Kind::kDeleteSnapshot, call.session, call.argument)) return true;
      if (call.kind == Kind::kMerge) return !WasAcknowledged(Kind::kPart, call.session, call.argument);
      return (call.kind == Kind::kRestore || call.kind == Kind::kDeleteSnapshot) &&
             !WasAcknowledged(Kind::kSnapshot, call.session, call.argument);
    case absl::StatusCode::kFailedPrecondition:
      // A late part of a merge that is done.
      return call.kind == Kind::kPart && MayHaveBeen(Kind::kMerge, call.session, call.argument);
    case absl::StatusCode::kAlreadyExists:
      return call.kind == Kind::kCreate && call.session == kSecond && !WasAcknowledged(Kind::kDelete, "narrow");
    case absl::StatusCode::kAborted:
      if (call.kind != Kind::kClone) return deleted;
      return std::any_of(calls_.begin(), calls_.end(), [&](const Call& other) {
        return other.session == call.argument && other.outcome != Outcome::kAcknowledged;
      });
    default:
      return false;
  }
}

bool SessionScenario::MayHaveBeen(Kind kind, const std::string& session, const std::string& argument) const {
  return std::any_of(calls_.begin(), calls_.end(), [&](const Call& call) {
    return call.kind == kind && call.session == session && (argument.empty() || call.argument == argument) &&
           call.outcome != Outcome::kRefusedForGood;
  });
}

bool SessionScenario::WasAcknowledged(Kind kind, const std::string& session, const std::string& argument) const {
  return std::any_of(calls_.begin(), calls_.end(), [&](const Call& call) {
    return call.kind == kind && call.session == session && (argument.empty() || call.argument == argument) &&
           call.outcome == Outcome::kAcknowledged;
  });
}

void SessionScenario::Break(const Call& call, const std::string& what) {
  broken_promises_.push_back(absl::StrCat("call \"", call.request_id, "\" (kind ", static_cast<int>(call.kind), " of ",
                                          call.session, "): ", what));
}

int64_t SessionScenario::num_unknown() const {
  return std::count_if(calls_.begin(), calls_.end(),
                       [](const Call& call) { return call.outcome == Outcome::kUnknown; });
}

// ---- Sending

SessionDraft SessionScenario::DraftOf(const Call& call) const {
  const int64_t num_features = WidthOf(call.session);
  return {.name = NameOf(call.session),
          .request_id = call.request_id,
          .config = {.num_features = num_features,
                     .epsilon = 1e-5 * static_cast<double>(call.value),
                     .labels = {{"owner", "me"}}},
          .durability = durability_,
          .parameters = {.weight = WeightsOf(call.value, num_features)},
          .num_batches_tracked = call.value};
}

absl::StatusOr<SessionScenario::Answered> SessionScenario::Issue(SessionRegistry& registry, const std::string& name,
                                                                 const Call& call) const {
  return Start(registry, name, call).get();
}

std::future<absl::StatusOr<SessionScenario::Answered>> SessionScenario::Start(SessionRegistry& registry,
                                                                              const std::string& name,
                                                                              const Call& call) const {
  auto promise = std::make_shared<std::promise<absl::StatusOr<Answered>>>();
  auto future = promise->get_future();
  const auto answered = [promise](const auto& given) {
    if (!given.ok()) return promise->set_value(given.status());
    Answered answer{.text = TextOf(*given), .generation = given->generation};
    if constexpr (requires { given->uid; }) answer.uid = given->uid;
    promise->set_value(std::move(answer));
  };
  ChangeGuard guard{.request_id = call.request_id, .expected_uid = call.expected_uid};
  if (call.kind == Kind::kCreate) {
    registry.Create(DraftOf(call), answered);
  } else if (call.kind == Kind::kClone) {
    guard.expected_generation = call.expected_generation;
    registry.Clone(NameOf(call.argument), guard, name, answered);
  } else if (call.kind == Kind::kDelete) {
    registry.Delete(name, guard, answered);
  } else {
    const auto found = registry.Find(name);
    if (!found.ok()) return promise->set_value(found.status()), std::move(future);
    Session& session = **found;
    const auto state = session.Snapshot();
    // The one answer of a call that speaks of one session.
    const auto answered_one = [answered](const auto& given) {
      if (!given.ok()) return answered(absl::StatusOr<ObservationAnswer>(given.status()));
      using Answer = std::decay_t<decltype(given->front().answer)>;
      answered(absl::StatusOr<Answer>(given->front().answer));
    };
    GatherRequest gathering{.name = name, .guard = guard, .id = call.argument};
    switch (call.kind) {
      case Kind::kObserve:
      case Kind::kReset:
        Observe({*found}, {session.Observe()},
                {.name = name,
                 .guard = guard,
                 .given = {.moments = BatchOf(call.value, state->config.num_features)},
                 .part_id = call.argument,
                 .reset = call.kind == Kind::kReset},
                answered_one);
        break;
      case Kind::kPart:
        gathering.parts.push_back({.id = absl::StrCat("site ", call.value),
                                   .given = {.moments = BatchOf(call.value, state->config.num_features)}});
        Gather({*found}, {session.Observe()}, {}, std::move(gathering), answered_one);
        break;
      case Kind::kMerge:
        gathering.commit = true;
        Gather({*found}, {session.Observe()}, {}, std::move(gathering), answered_one);
        break;
      case Kind::kTrain:
      case Kind::kShadow:
        session.CommitForward(
            guard, kBatch,
            {.snapshot = state,
             .moments = BatchOf(call.value, state->config.num_features),
             .normalized_with = call.value % 2 == 0 ? NormalizedWith::kRunning : NormalizedWith::kBatch,
             .update = call.kind == Kind::kTrain ? Update::kRunning : Update::kShadow},
            answered);
        break;
      case Kind::kSetMode:
        session.SetMode(guard, static_cast<Mode>(call.value), answered);
        break;
      case Kind::kSetParameters:
        session.SetParameters(guard, WeightsOf(call.value, state->config.num_features), {}, answered);
        break;
      case Kind::kSnapshot:
        session.TakeSnapshot(guard, call.argument, answered);
        break;
      case Kind::kRestore:
        session.RestoreSnapshot(guard, call.argument, answered);
        break;
      default:
        session.DeleteSnapshot(guard, call.argument, answered);
    }
  }
  return future;
}

// ---- Judging

void SessionScenario::CheckWhatIsThere(SessionRegistry& registry,
                                       const std::map<std::string, int64_t>& read_generations) {
  std::map<std::string, SessionDescription> there;
  const auto page = registry.List("", 0, "");
  for (const SessionDescription& session : page->sessions) there[session.uid] = session;
  std::map<std::string, int64_t> least = read_generations;
  for (const size_t index : acknowledged_) {
    const Call& call = calls_[index];
    if (call.kind == Kind::kDelete) continue;
    int64_t& generation = least[uids_[call.session]];
    generation = std::max(generation, call.generation);
  }
  for (const auto& [session, uid] : uids_) {
    if (MayHaveBeen(Kind::kDelete, session)) least.erase(uid);
    if (WasAcknowledged(Kind::kDelete, session) && there.contains(uid)) {
      broken_promises_.push_back(absl::StrCat(session, " was deleted and is there"));
    }
  }
  for (const auto& [uid, generation] : least) {
    const auto found = there.find(uid);
    if (found != there.end() && found->second.generation >= generation) continue;
    broken_promises_.push_back(
        absl::StrCat("session ", uid, " was acknowledged or read at generation ", generation, " and is ",
                     found == there.end() ? "gone" : absl::StrCat("at ", found->second.generation)));
  }
}

void SessionScenario::RepeatAll(SessionRegistry& registry) {
  // What is there already was made before what is made now.
  for (size_t i = 0; i < calls_.size(); ++i) {
    if (calls_[i].outcome != Outcome::kUnknown) continue;
    const auto session = registry.Find(NameOf(calls_[i].session));
    if (session.ok() && (*session)->Admit(calls_[i].request_id).may_be_remembered) Send(registry, i);
  }
  for (size_t i = 0; i < calls_.size(); ++i) {
    const Call& call = calls_[i];
    if (call.outcome == Outcome::kUnknown) {
      Send(registry, i);
    } else if (call.outcome == Outcome::kAcknowledged) {
      const auto again = Issue(registry, NameOf(call.session), call);
      if (absl::IsUnavailable(again.status())) continue;
      if (!again.ok()) {
        // A session's memory goes with it.
        const bool deleted = MayHaveBeen(Kind::kDelete, call.session);
        if (!deleted) Break(call, absl::StrCat("was acknowledged, and its repeat says ", again.status().ToString()));
      } else if (again->text != call.answer) {
        Break(call, absl::StrCat("answered ", call.answer, ", its repeat ", again->text));
      }
    }
  }
}

std::vector<const SessionScenario::Call*> SessionScenario::HistoryOf(const std::string& session) const {
  std::vector<const Call*> history;
  for (const size_t index : acknowledged_) {
    if (calls_[index].session == session) history.push_back(&calls_[index]);
  }
  return history;
}

void SessionScenario::Replay(SessionRegistry& model, const std::string& session) {
  for (const Call* acknowledged : HistoryOf(session)) {
    Call call = *acknowledged;
    if (call.kind == Kind::kDelete) continue;  // CheckWhatIsThere knows
    call.expected_uid.clear();
    if (call.kind == Kind::kCreate || call.kind == Kind::kClone) {
      SessionDraft draft = DraftOf(call);
      if (call.kind == Kind::kClone) {
        const SessionContent& content = model_contents_[call.argument][call.expected_generation];
        if (content.state == nullptr) {
          Break(call, absl::StrCat("is of generation ", call.expected_generation, ", which is none"));
          return;
        }
        const SessionState& source = *content.state;
        draft.config = source.config;
        draft.mode = source.mode;
        draft.parameters = *source.parameters;
        draft.statistics = *source.running;
        draft.num_batches_tracked = source.num_batches_tracked;
      }
      draft.name = session;
      draft.durability = Durability::kNone;
      if (!Create(model, draft).ok()) Break(call, "cannot be made again");
    } else {
      const auto answer = Issue(model, session, call);
      if (!answer.ok()) {
        Break(call, absl::StrCat("was acknowledged, and the model says ", answer.status().ToString()));
      } else if (answer->generation != call.generation) {
        Break(call, absl::StrCat("was acknowledged as generation ", call.generation, ", and is ", answer->generation));
      }
    }
    const SessionContent content = (*model.Find(session))->Observe();
    model_contents_[session][content.state->generation] = content;
  }
}

void SessionScenario::CompareWithModel(SessionRegistry& registry) {
  SessionRegistry model({});
  model_contents_.clear();
  for (const char* const session : {"wide", "narrow", kSecond, "clone"}) {
    if (!uids_.contains(session)) continue;
    Replay(model, session);
    if (WasAcknowledged(Kind::kDelete, session)) {
      (void)Delete(model, session, {});
      continue;
    }
    const auto actual = registry.Find(NameOf(session));
    const auto expected = model.Find(session);
    if (!actual.ok() || !expected.ok()) {
      broken_promises_.push_back(
          absl::StrCat(session, ": ", actual.status().ToString(), "; in the model ", expected.status().ToString()));
      continue;
    }
    const std::string is = TextOf((*actual)->Observe());
    const std::string should_be = TextOf((*expected)->Observe());
    if ((*actual)->uid() != uids_[session]) broken_promises_.push_back(absl::StrCat(session, " has another uid"));
    if (is == should_be) continue;
    broken_promises_.push_back(absl::StrCat(session, " is\n  ", is, "\nand should be\n  ", should_be));
  }
  const auto is = registry.GetUsage(), should_be = model.GetUsage();
  if (is.num_sessions == should_be.num_sessions && is.state_bytes == should_be.state_bytes) return;
  broken_promises_.push_back(absl::StrCat(is.num_sessions, " sessions are charged with ", is.state_bytes, " bytes: ",
                                          should_be.num_sessions, " and ", should_be.state_bytes, " are right"));
}

}  // namespace normserve
