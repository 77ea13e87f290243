#include "server/session/gathering.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/session/collection_change.h"
#include "server/session/field_error.h"
#include "server/session/joint_change.h"
#include "server/session/part_id.h"
#include "server/session/session_errors.h"
#include "server/session/session_name.h"

namespace normserve {
namespace {

using Gathered = absl::AnyInvocable<void(absl::StatusOr<std::vector<GatheredSession>>) &&>;

const char* IdField(CollectionKind kind) { return kind == CollectionKind::kMerge ? "merge_id" : "calibration_id"; }

absl::Status CheckRequest(const GatherRequest& request) {
  absl::Status status = CheckGuardFields(request.guard);
  if (status.ok()) status = CheckJointGuard(request.name, request.guard);
  if (status.ok()) status = CheckPartId(IdField(request.kind), request.id, /*is_required=*/true);
  if (status.ok() && request.is_empty) {
    status = FieldError("batch.shape", "batch has no samples: leave out what has no data");
  }
  for (size_t i = 0; status.ok() && i < request.parts.size(); ++i) {
    const bool is_merge = request.kind == CollectionKind::kMerge;
    status = CheckPartId(is_merge ? absl::StrCat("parts[", i, "].id") : "part_id", request.parts[i].id,
                         /*is_required=*/true);
    if (status.ok() && request.parts[i].given.empty()) {
      status = FieldError(absl::StrCat("parts[", i, "].moments"),
                          absl::StrCat("parts[", i, "] has neither moments nor layers: send one of them"));
    }
  }
  if (status.ok() && request.drop && (request.commit || !request.parts.empty())) {
    status = FieldError("drop", "drop comes with parts, data or commit: send it alone");
  }
  if (status.ok() && !request.to_snapshot.empty()) {
    status = request.commit ? CheckSnapshotName("to_snapshot", request.to_snapshot)
                            : FieldError("to_snapshot", absl::StrCat("to_snapshot is \"", request.to_snapshot,
                                                                     "\" without commit: send it with the commit"));
  }
  return status;
}

Fingerprint FingerprintOf(const GatherRequest& request) {
  FingerprintBuilder builder(request.kind == CollectionKind::kMerge ? "MergeMoments" : "Calibrate");
  AddExpectations(request.guard, builder);
  builder.Add(absl::string_view(request.name)).Add(absl::string_view(request.id));
  builder.Add(int64_t{request.commit} << 1 | int64_t{request.drop})
      .Add(static_cast<int64_t>(request.policy))
      .Add(static_cast<int64_t>(request.method))
      .Add(absl::string_view(request.to_snapshot))
      .Add(static_cast<int64_t>(request.parts.size()));
  for (const GatherRequest::Part& part : request.parts) AddMoments(part.given, builder.Add(absl::string_view(part.id)));
  return builder.Finish();
}

// Each session's step, and the sums that were made for it before any lock was taken.
struct Plan {
  CollectionKey key;
  std::map<const SessionJournal*, CollectionStep> steps;
  std::map<const SessionJournal*, CollectionSums> sums;
  const SessionJournal* first = nullptr;  // of those changed, in their order
  const SessionJournal* last = nullptr;
  bool is_any_here = false;  // whether one of them gathers, as of the newest contents
};

absl::Status AddParts(const std::vector<std::shared_ptr<Session>>& sessions, GatherRequest& request, Plan& plan) {
  for (size_t i = 0; i < request.parts.size(); ++i) {
    GatherRequest::Part& part = request.parts[i];
    const std::string field = request.kind == CollectionKind::kMerge ? absl::StrCat("parts[", i, "].") : "";
    auto matched = MatchMoments(field, request.name, sessions, std::move(part.given));
    if (!matched.ok()) return matched.status();
    for (const auto& [session, moments] : *matched) {
      plan.steps[session->journal().get()].parts.push_back(
          std::make_shared<const CollectedPart>(CollectedPart{.id = part.id, .moments = *moments}));
    }
  }
  return absl::OkStatus();
}

// Makes the sums of what is here now: under the locks they are made again only if more parts have come.
void SumUpEarly(const std::vector<std::shared_ptr<Session>>& sessions, const std::vector<SessionContent>& contents,
                Plan& plan) {
  for (size_t i = 0; i < sessions.size(); ++i) {
    const SessionJournal* journal = sessions[i]->journal().get();
    const auto& collections = contents[i].collections;
    std::shared_ptr<const Collection> here;
    if (collections != nullptr) {
      if (const auto found = collections->find(plan.key); found != collections->end()) here = found->second;
    }
    if (here != nullptr && (here->result != nullptr || !here->lost.ok())) continue;
    const CollectionStep& step = plan.steps[journal];
    if (here == nullptr && step.parts.empty()) continue;
    const int64_t num_features = contents[i].state->config.num_features;
    auto whole = WithParts(step, sessions[i]->name(), std::move(here), num_features);
    if (!whole.ok()) continue;  // said under the lock
    auto sums = SumUp(step, *std::move(whole), static_cast<size_t>(num_features));
    if (sums.ok()) plan.sums[journal] = *std::move(sums);
  }
}

MakeChange ChangeOf(std::shared_ptr<Plan> plan, std::string name) {
  return [plan = std::move(plan), name = std::move(name)](
             const SessionJournal& journal, const SessionContent& newest) -> absl::StatusOr<SessionChange> {
    // The sessions are asked in their order, all under their locks.
    if (&journal == plan->first) plan->is_any_here = false;
    const CollectionStep& step = plan->steps[&journal];
    const auto sums = plan->sums.find(&journal);
    auto change = ChangeCollection(step, sums == plan->sums.end() ? nullptr : &sums->second, journal, newest);
    if (!change.ok()) return change;
    const bool is_here = newest.collections != nullptr && newest.collections->contains(plan->key);
    plan->is_any_here = plan->is_any_here || is_here || !step.parts.empty();
    if (&journal != plan->last || plan->is_any_here) return change;
    journal.surroundings().state_budget->Give(change->taken_bytes);
    return CollectionNotFound(name, CollectionText(plan->key));
  };
}

// What was answered, with the results that the sessions keep.
absl::StatusOr<std::vector<GatheredSession>> WithResults(const std::vector<std::shared_ptr<Session>>& sessions,
                                                         std::vector<GatheringAnswer> answers,
                                                         const std::string& request_id) {
  std::map<std::string, const Session*> by_uid;
  for (const auto& session : sessions) by_uid[session->uid()] = session.get();
  std::vector<GatheredSession> gathered;
  for (GatheringAnswer& answer : answers) {
    if (answer.num_parts == 0) continue;
    GatheredSession entry{.answer = std::move(answer)};
    if (entry.answer.is_committed) {
      const auto session = by_uid.find(entry.answer.uid);
      if (session != by_uid.end()) {
        const auto collections = session->second->Observe().collections;
        const auto found = collections == nullptr ? Collections::const_iterator{} : collections->find(entry.answer.key);
        const bool is_kept = collections != nullptr && found != collections->end();
        if (is_kept && found->second->result != nullptr && found->second->result->order == entry.answer.order) {
          entry.result = found->second->result;
        }
      }
      if (entry.result == nullptr) return AnswerDropped(entry.answer.session, request_id, entry.answer.generation);
    }
    gathered.push_back(std::move(entry));
  }
  return gathered;
}

// Which answers by reading alone: how many parts are here.
absl::StatusOr<std::vector<GatheredSession>> Look(const std::vector<std::shared_ptr<Session>>& sessions,
                                                  const std::vector<SessionContent>& contents,
                                                  const GatherRequest& request, const CollectionStep& step) {
  std::vector<GatheringAnswer> answers;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const SessionIdentity& identity = sessions[i]->journal()->identity();
    absl::Status status = CheckExpectations(request.guard, identity.name, identity.uid, contents[i].state->generation);
    if (!status.ok()) return status;
    const auto change = ChangeCollection(step, nullptr, *sessions[i]->journal(), contents[i]);
    if (!change.ok()) return change.status();
    answers.push_back(std::get<GatheringAnswer>(change->answer));
  }
  auto gathered = WithResults(sessions, std::move(answers), request.guard.request_id);
  if (gathered.ok() && gathered->empty()) return CollectionNotFound(request.name, CollectionText(step.key));
  return gathered;
}

}  // namespace

void Gather(const std::vector<std::shared_ptr<Session>>& sessions, const std::vector<SessionContent>& contents,
            const CollectionLimits& limits, GatherRequest request, Gathered gathered) {
  if (absl::Status status = CheckRequest(request); !status.ok()) return std::move(gathered)(status);
  const Fingerprint fingerprint = FingerprintOf(request);
  const CollectionStep step{.key = {request.kind, request.id},
                            .commit = request.commit,
                            .drop = request.drop,
                            .policy = request.policy,
                            .method = request.method,
                            .to_snapshot = request.to_snapshot,
                            .limits = limits};
  if (request.parts.empty() && !request.commit && !request.drop) {
    return std::move(gathered)(Look(sessions, contents, request, step));
  }
  auto plan = std::make_shared<Plan>();
  plan->key = step.key;
  if (absl::Status status = AddParts(sessions, request, *plan); !status.ok()) return std::move(gathered)(status);
  std::vector<std::shared_ptr<Session>> changed;
  for (const auto& session : sessions) {
    const SessionJournal* journal = session->journal().get();
    if (!request.commit && !request.drop && !plan->steps.contains(journal)) continue;
    CollectionStep whole = step;
    whole.parts = std::move(plan->steps[journal].parts);
    plan->steps[journal] = std::move(whole);
    changed.push_back(session);
  }
  if (request.commit) SumUpEarly(sessions, contents, *plan);
  plan->first = changed.front()->journal().get();
  plan->last = changed.back()->journal().get();
  ChangeJointly(request.name, changed, request.guard, fingerprint, ChangeOf(std::move(plan), request.name),
                TakeAnswersAs<GatheringAnswer>(request.guard.request_id,
                                               [changed, id = request.guard.request_id, gathered = std::move(gathered)](
                                                   absl::StatusOr<std::vector<GatheringAnswer>> answers) mutable {
                                                 if (!answers.ok()) return std::move(gathered)(answers.status());
                                                 std::move(gathered)(WithResults(changed, *std::move(answers), id));
                                               }));
}

}  // namespace normserve
