#include "server/session/batch_moments.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"

namespace normserve {
namespace {

// False for NaN too. An engine that sums in double must refuse what one that sums in float32 cannot hold.
bool FitsFloat(double value) { return std::abs(value) <= std::numeric_limits<float>::max(); }

}  // namespace

absl::Status CheckFiniteMoments(absl::string_view field, const ReceivedTensor& batch, const BatchShape& shape,
                                const Moments& moments, absl::string_view right) {
  for (size_t c = 0; c < moments.mean.size(); ++c) {
    if (FitsFloat(moments.mean[c]) && FitsFloat(moments.m2[c])) continue;
    const auto found = FindNonFinite(batch.ToInput(shape), static_cast<int64_t>(c));
    const int64_t positions = shape.ValuesPerChannel() / batch.dimensions[0];  // of a sample
    const std::string what = found.has_value()
                                 ? absl::StrCat("is ", found->value, " at sample ", found->index / positions,
                                                ", position ", found->index % positions)
                                 : std::string("has moments that overflow float32");
    const std::string data = absl::StrCat(field, ".data");
    return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kNonFinite,
                     absl::StrCat(data, ": channel ", c, " ", what, "; ", right),
                     {{"field", data}, {"channel", absl::StrCat(c)}});
  }
  return absl::OkStatus();
}

void TakeMoments(Engine& engine, const std::shared_ptr<Session>& session, ReceivedTensor batch,
                 absl::AnyInvocable<void(absl::StatusOr<std::optional<Moments>>) &&> taken) {
  constexpr absl::string_view kField = "batch";
  const auto shape = CheckTensor(kField, batch);
  if (!shape.ok()) return std::move(taken)(shape.status());
  const auto state = session->Snapshot();
  const int64_t num_features = state->config.num_features;
  absl::Status status = CheckChannels(kField, batch, session->name(), *shape, num_features);
  if (!status.ok()) return std::move(taken)(status);
  if (shape->batch_size == 0) return std::move(taken)(std::nullopt);
  // Normalised with constants, as one value a channel has no statistics to be normalised with; the output is dropped.
  auto constants = std::make_shared<NormalizationStatistics>();
  constants->mean.assign(static_cast<size_t>(num_features), 0);
  constants->variance.assign(static_cast<size_t>(num_features), 1);
  ForwardJob job{.input = batch.ToInput(*shape),
                 .parameters = state->parameters,
                 .epsilon = state->config.epsilon,
                 .given = std::move(constants),
                 .want_moments = true};
  engine.Forward(std::move(job), [batch = std::move(batch), shape = *shape, kField,
                                  taken = std::move(taken)](absl::StatusOr<ForwardResult> result) mutable {
    if (!result.ok()) return std::move(taken)(result.status());
    absl::Status finite =
        CheckFiniteMoments(kField, batch, shape, *result->moments, "nothing was observed: send finite values");
    if (!finite.ok()) return std::move(taken)(finite);
    result->moments->num_samples = shape.batch_size;
    std::move(taken)(std::move(result->moments));
  });
}

}  // namespace normserve
