// Messages about populations. Internal: not installed.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "normserve/connection.h"
#include "normserve/v1/batch_norm_service.pb.h"

namespace normserve::client {

v1::ObserveRequest ToMessage(const ObserveRequest& request);
v1::GetMomentsRequest ToMessage(const GetMomentsRequest& request);
v1::MergeMomentsRequest ToMessage(const MergeMomentsRequest& request);
v1::CalibrateRequest ToMessage(const CalibrateRequest& request);

// The tensor and a copy of its values.
void WriteTensor(const TensorView& tensor, v1::Tensor& message);

// INTERNAL: the reply holds none.
absl::StatusOr<std::vector<Observed>> FromMessage(const v1::ObserveReply& message);
absl::StatusOr<std::vector<SessionMoments>> FromMessage(const v1::GetMomentsReply& message);
absl::StatusOr<std::vector<Merged>> FromMessage(const v1::MergeMomentsReply& message);
absl::StatusOr<std::vector<Calibrated>> FromMessage(const v1::CalibrateReply& message);

}  // namespace normserve::client
