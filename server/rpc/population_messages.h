// The messages of Observe, GetMoments, MergeMoments and Calibrate to the domain's types and back.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "normserve/v1/batch_norm_service.pb.h"
#include "server/session/gathering.h"
#include "server/session/observation.h"
#include "server/session/received_tensor.h"
#include "server/session/session.h"

namespace normserve {

// All but the batch. INVALID_ARGUMENT: a layer that is there twice.
absl::StatusOr<ObserveRequest> ReadObserveRequest(const v1::ObserveRequest& message);

// A tensor whose values stay in the message, which must outlive it. INVALID_ARGUMENT: an enum has a value that this
// server does not know.
absl::StatusOr<ReceivedTensor> ReadHeldTensor(absl::string_view field, const v1::Tensor& message);

// Errors as ReadObserveRequest, and a policy or estimator that this server does not know.
absl::StatusOr<GatherRequest> ReadMergeRequest(const v1::MergeMomentsRequest& message);
// All but the batch. The same.
absl::StatusOr<GatherRequest> ReadCalibrateRequest(const v1::CalibrateRequest& message);

// Each entry of the replies.
void WriteMerged(const GatheredSession& gathered, v1::MergedSession& message);
void WriteCalibrated(const GatheredSession& gathered, v1::CalibratedSession& message);

void WriteObserved(const ObservedSession& observed, v1::ObservedSession& message);

// Of the channels asked for. INVALID_ARGUMENT: source or channel_range. RESOURCE_EXHAUSTED (LIMIT_REACHED): of a model,
// more than `max_bytes`.
absl::Status WriteMomentsReply(const std::vector<std::shared_ptr<Session>>& sessions,
                               const std::vector<SessionContent>& contents, const v1::GetMomentsRequest& request,
                               int64_t max_bytes, v1::GetMomentsReply& reply);

}  // namespace normserve
