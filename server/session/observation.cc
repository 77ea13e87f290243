#include "server/session/observation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/moments/part_set.h"
#include "server/session/field_error.h"
#include "server/session/joint_change.h"
#include "server/session/part_id.h"
#include "server/session/running_statistics.h"
#include "server/session/session_errors.h"

namespace normserve {
namespace {

// One session's share of a request.
struct Addition {
  std::shared_ptr<const Moments> moments;  // null: none
  std::string part_id;
  bool reset = false;
};

absl::Status CheckSum(const Moments& sum, const std::string& session) {
  if (sum.count > kMaxCount) {
    return FieldError("moments.count", absl::StrCat("session \"", session, "\" would have observed ", sum.count,
                                                    " values a channel, at most 2^53 can be counted: reset it"));
  }
  for (size_t c = 0; c < sum.mean.size(); ++c) {
    if (std::isfinite(sum.mean[c]) && std::isfinite(sum.m2[c])) continue;
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite,
                     absl::StrCat("the moments of channel ", c, " and what session \"", session,
                                  "\" has observed lie too far apart for double: send means below 1e150"),
                     {{"field", "moments.mean"}, {"channel", absl::StrCat(c)}});
  }
  return absl::OkStatus();
}

// `before` with the addition.
absl::StatusOr<Observations> Add(const Addition& addition, const std::string& session, const Observations& before) {
  Observations after = before;
  if (addition.reset) {
    // A reset that is sent again, or finds nothing, is no reason to lose what there is to compare with.
    if (after.observed != nullptr) after.observed_before = after.observed;
    after.observed = nullptr;
    after.observed_parts = nullptr;
  }
  if (addition.moments == nullptr) return after;
  if (!addition.part_id.empty()) {
    FingerprintBuilder contents("part");
    AddMoments(*addition.moments, contents);
    const ObservedPart part{.id = FingerprintBuilder("part id").Add(absl::string_view(addition.part_id)).Finish(),
                            .contents = contents.Finish()};
    auto parts = std::make_shared<std::vector<ObservedPart>>();
    if (after.observed_parts != nullptr) *parts = *after.observed_parts;
    const auto same = std::find_if(parts->begin(), parts->end(), [&](const auto& each) { return each.id == part.id; });
    if (same != parts->end()) {
      if (same->contents == part.contents) return after;
      return PartConflict(session, addition.part_id);
    }
    if (parts->size() >= kMaxObservedParts) parts->erase(parts->begin());
    parts->push_back(part);
    after.observed_parts = std::move(parts);
  }
  auto sum = std::make_shared<const Moments>(
      MergeMoments(after.observed == nullptr ? Moments{} : *after.observed, *addition.moments));
  if (absl::Status status = CheckSum(*sum, session); !status.ok()) return status;
  after.observed = std::move(sum);
  return after;
}

ObservationAnswer AnswerOf(const SessionIdentity& identity, const SessionState& state,
                           const std::shared_ptr<const Moments>& observed) {
  return {.session = identity.name,
          .uid = identity.uid,
          .generation = state.generation,
          .count = observed == nullptr ? 0 : observed->count};
}

using Additions = std::map<const SessionJournal*, Addition>;

MakeChange ObservationChange(Additions additions) {
  return [additions = std::move(additions)](const SessionJournal& journal,
                                            const SessionContent& newest) -> absl::StatusOr<SessionChange> {
    const SessionIdentity& identity = journal.identity();
    if (newest.is_deleted) return SessionNotFound(identity.name);
    auto after = Add(additions.at(&journal), identity.name, newest.observations);
    if (!after.ok()) return after.status();
    SessionChange change{.observations = *std::move(after)};
    change.answer = AnswerOf(identity, *newest.state, change.observations->observed);
    return change;
  };
}

absl::StatusOr<std::vector<ObservedSession>> TryOut(const std::vector<std::shared_ptr<Session>>& sessions,
                                                    const std::vector<SessionContent>& contents,
                                                    const ChangeGuard& guard, const Additions& additions) {
  std::vector<ObservedSession> answers;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const auto addition = additions.find(sessions[i]->journal().get());
    if (addition == additions.end()) continue;
    const SessionIdentity& identity = sessions[i]->journal()->identity();
    const SessionState& state = *contents[i].state;
    absl::Status status = CheckExpectations(guard, identity.name, identity.uid, state.generation);
    if (!status.ok()) return status;
    auto after = Add(addition->second, identity.name, contents[i].observations);
    if (!after.ok()) return after.status();
    answers.push_back({.answer = AnswerOf(identity, state, after->observed), .moments = after->observed});
  }
  return answers;
}

}  // namespace

void Observe(const std::vector<std::shared_ptr<Session>>& sessions, const std::vector<SessionContent>& contents,
             ObserveRequest request,
             absl::AnyInvocable<void(absl::StatusOr<std::vector<ObservedSession>>) &&> observed) {
  absl::Status status = CheckGuardFields(request.guard);
  if (status.ok()) status = CheckJointGuard(request.name, request.guard);
  if (status.ok()) status = CheckPartId("part_id", request.part_id, /*is_required=*/false);
  if (status.ok() && request.given.empty() && !request.reset && !request.is_empty) {
    status = FieldError("data", "neither moments, layers nor batch is set: send one of them, or reset to forget");
  }
  if (!status.ok()) return std::move(observed)(status);
  FingerprintBuilder builder("Observe");
  AddExpectations(request.guard, builder);
  builder.Add(absl::string_view(request.name)).Add(absl::string_view(request.part_id));
  AddMoments(request.given, builder.Add(static_cast<int64_t>(request.reset)));

  Additions additions;
  std::vector<std::shared_ptr<Session>> changed;
  if (request.given.empty()) {
    for (const auto& session : sessions) additions[session->journal().get()] = {.reset = request.reset};
    changed = sessions;
  } else {
    auto matched = MatchMoments("", request.name, sessions, std::move(request.given));
    if (!matched.ok()) return std::move(observed)(matched.status());
    for (auto& [session, moments] : *matched) {
      additions[session->journal().get()] = {
          .moments = std::move(moments), .part_id = request.part_id, .reset = request.reset};
      changed.push_back(session);
    }
  }
  if (request.dry_run) return std::move(observed)(TryOut(sessions, contents, request.guard, additions));
  ChangeJointly(request.name, changed, request.guard, builder.Finish(), ObservationChange(std::move(additions)),
                TakeAnswersAs<ObservationAnswer>(
                    request.guard.request_id,
                    [observed = std::move(observed)](absl::StatusOr<std::vector<ObservationAnswer>> answers) mutable {
                      if (!answers.ok()) return std::move(observed)(answers.status());
                      std::vector<ObservedSession> sessions_observed;
                      for (ObservationAnswer& answer : *answers) {
                        sessions_observed.push_back({.answer = std::move(answer)});
                      }
                      std::move(observed)(std::move(sessions_observed));
                    }));
}

}  // namespace normserve
