#include "server/session/backward_call.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/error_reason.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

// Whatever a Backward may have reported: not finite where the batch or its gradient is not.
absl::Status CheckSums(const GradientSums& sums, int64_t num_features, bool is_empty) {
  if (sums.count < (is_empty ? 0 : 1)) {
    return FieldError("start_from_sums.count",
                      absl::StrCat("start_from_sums.count is ", sums.count, ": send 1 or more values per channel"));
  }
  absl::Status status = CheckLength("start_from_sums.grad_output", sums.grad_output.size(), num_features);
  if (status.ok()) {
    status = CheckLength("start_from_sums.grad_output_centered_input", sums.product.size(), num_features);
  }
  if (status.ok()) status = CheckLength("start_from_sums.centered_input", sums.centred_input.size(), num_features);
  if (status.ok() && !sums.centred_input_squared.empty()) {
    status = CheckLength("start_from_sums.centered_input_squared", sums.centred_input_squared.size(), num_features);
  }
  return status;
}

// Whatever a Forward may have reported: not finite where the batch was not, and a running variance below zero where a
// momentum outside [0, 1] made it so.
absl::Status CheckResent(const ResentForward& resent, int64_t num_features) {
  absl::Status status = CheckLength("resent.normalization.mean", resent.normalization.mean.size(), num_features);
  if (status.ok()) {
    status = CheckLength("resent.normalization.var", resent.normalization.variance.size(), num_features);
  }
  if (status.ok() && !resent.weight.empty()) {
    status = CheckVector<float>("resent.normalization.weight", resent.weight, num_features);
  }
  return status;
}

absl::Status DiffersFromInput(absl::string_view what, absl::string_view gradient, absl::string_view input) {
  return MakeError(absl::StatusCode::kInvalidArgument, ErrorReason::kShapeMismatch,
                   absl::StrCat("grad_output.", what, " is ", gradient, ", the input's is ", input,
                                ": send the gradient of that Forward's output"),
                   {{"field", absl::StrCat("grad_output.", what)}});
}

absl::Status CheckLikeInput(const ReceivedTensor& gradient, ElementType type, Layout layout,
                            const std::vector<int64_t>& dimensions) {
  const auto layout_name = [](Layout l) { return l == Layout::kChannelsFirst ? "CHANNELS_FIRST" : "CHANNELS_LAST"; };
  if (gradient.type != type) return DiffersFromInput("data_type", TypeName(gradient.type), TypeName(type));
  if (gradient.dimensions != dimensions) {
    return DiffersFromInput("shape", DimensionsText(gradient.dimensions), DimensionsText(dimensions));
  }
  // [N, C] is the same in both.
  if (gradient.layout == layout || dimensions.size() == 2) return absl::OkStatus();
  return DiffersFromInput("layout", layout_name(gradient.layout), layout_name(layout));
}

// The call as far as it is known before the engine is asked.
struct Prepared {
  BackwardJob job;
  BackwardReply reply;
  bool affine = true;
};

absl::Status UseSaved(SavedForwardCache& cache, const BackwardRequest& request, const std::string& uid,
                      BackwardJob& job) {
  auto saved = cache.Find(request.saved_forward, uid);
  if (!saved.ok()) return saved.status();
  absl::Status status = CheckLikeInput(request.grad_output, saved->type, saved->layout, saved->dimensions);
  if (!status.ok()) return status;
  job.kept_input = saved->input;
  job.parameters = saved->parameters;
  job.normalization = saved->normalization;
  job.from_batch = saved->from_batch;
  return absl::OkStatus();
}

absl::Status UseResent(const BackwardRequest& request, const std::string& name, int64_t num_features,
                       BackwardJob& job) {
  const ResentForward& resent = *request.resent;
  if (absl::Status status = CheckResent(resent, num_features); !status.ok()) return status;
  const bool needs_input = !request.start_from_sums || (resent.from_batch && !request.stop_at_sums);
  if (needs_input) {
    auto shape = CheckTensor("resent.input", resent.input);
    if (!shape.ok()) return shape.status();
    absl::Status status = CheckChannels("resent.input", resent.input, name, *shape, num_features);
    if (status.ok()) {
      status = CheckLikeInput(request.grad_output, resent.input.type, resent.input.layout, resent.input.dimensions);
    }
    if (!status.ok()) return status;
    job.input = resent.input.ToInput(*shape);
  }
  AffineParameters parameters{.weight = resent.weight};
  if (parameters.weight.empty()) parameters.weight.assign(static_cast<size_t>(num_features), 1.0f);
  job.parameters = std::make_shared<const AffineParameters>(std::move(parameters));
  job.normalization = std::make_shared<const NormalizationStatistics>(resent.normalization);
  job.from_batch = resent.from_batch;
  return absl::OkStatus();
}

absl::StatusOr<Prepared> Prepare(SessionRegistry& registry, SavedForwardCache& cache, const BackwardRequest& request) {
  if (absl::Status status = CheckGuardFields(request.guard); !status.ok()) return status;
  const auto found = registry.Find(request.name);
  if (!found.ok()) return found.status();
  const Session& session = **found;
  const auto state = session.Snapshot();
  const int64_t num_features = state->config.num_features;
  absl::Status status = CheckExpectations(request.guard, session.name(), session.uid(), state->generation);
  if (!status.ok()) return status;
  const auto shape = CheckTensor("grad_output", request.grad_output);
  if (!shape.ok()) return shape.status();
  status = CheckChannels("grad_output", request.grad_output, session.name(), *shape, num_features);
  if (status.ok() && request.start_from_sums) {
    status = CheckSums(*request.start_from_sums, num_features, shape->batch_size == 0);
  }
  if (status.ok() && request.start_from_sums && request.stop_at_sums) {
    status = FieldError("stop_at_sums",
                        "stop_at_sums and start_from_sums are both set, which leaves nothing to do: set one");
  }
  if (status.ok() && request.saved_forward.empty() && !request.resent) {
    status = FieldError("source", "neither saved_forward nor resent is set: send one of them");
  }
  if (!status.ok()) return status;

  Prepared prepared{.affine = state->config.affine};
  BackwardJob& job = prepared.job;
  job.grad_output = request.grad_output.ToInput(*shape);
  job.epsilon = state->config.epsilon;
  job.sums = request.start_from_sums;
  job.want_grad_input = !request.stop_at_sums;
  status = request.resent ? UseResent(request, session.name(), num_features, job)
                          : UseSaved(cache, request, session.uid(), job);
  if (!status.ok()) return status;
  prepared.reply = {.uid = session.uid(), .generation = state->generation};
  if (job.want_grad_input) {
    prepared.reply.type = request.grad_output.type;
    prepared.reply.layout = request.grad_output.layout;
    prepared.reply.dimensions = request.grad_output.dimensions;
  }
  return prepared;
}

// grad_bias is the sum of g; grad_weight the sum of g times the normalised input (kernels/engine.h), in double, rounded
// once.
void WeightAndBias(const GradientSums& sums, const NormalizationStatistics& used, double epsilon, bool from_batch,
                   BackwardReply& reply) {
  const auto count = static_cast<double>(sums.count);
  for (size_t c = 0; c < sums.grad_output.size(); ++c) {
    reply.grad_bias.push_back(static_cast<float>(sums.grad_output[c]));
    if (sums.count == 0) {
      reply.grad_weight.push_back(0);
      continue;
    }
    double shifted = used.variance[c] + epsilon;
    double product = sums.product[c];
    if (from_batch) {
      const double mean_xc = sums.centred_input[c] / count;
      if (!sums.centred_input_squared.empty()) {
        shifted = (sums.centred_input_squared[c] - mean_xc * sums.centred_input[c]) / count + epsilon;
      }
      // A constant channel without epsilon was divided by 1.
      if (shifted == 0) shifted = 1;
      // A sum of g that is not finite leaves nothing to correct.
      if (std::isfinite(sums.grad_output[c])) product -= mean_xc * sums.grad_output[c];
    }
    reply.grad_weight.push_back(static_cast<float>(product / std::sqrt(shifted)));
  }
}

GradientSums ZeroSums(size_t num_features, bool from_batch) {
  const std::vector<double> zeros(num_features, 0.0);
  GradientSums sums{.count = 0, .grad_output = zeros, .product = zeros, .centred_input = zeros};
  if (from_batch) sums.centred_input_squared = zeros;
  return sums;
}

}  // namespace

void StartBackward(SessionRegistry& registry, Engine& engine, SavedForwardCache& cache, BackwardRequest request,
                   BackwardReplied replied) {
  auto prepared = Prepare(registry, cache, request);
  if (!prepared.ok()) return std::move(replied)(prepared.status());
  BackwardJob& job = prepared->job;
  auto finish = [&cache, normalization = job.normalization, epsilon = job.epsilon, from_batch = job.from_batch,
                 affine = prepared->affine, reply = std::move(prepared->reply),
                 release = request.release_saved_forward ? request.saved_forward : std::string(),
                 replied = std::move(replied)](absl::StatusOr<BackwardResult> result) mutable {
    if (!result.ok()) return std::move(replied)(result.status());
    reply.sums = std::move(result->sums);
    reply.grad_input = std::move(result->grad_input);
    if (affine) WeightAndBias(reply.sums, *normalization, epsilon, from_batch, reply);
    if (!release.empty()) cache.Release(release);
    std::move(replied)(std::move(reply));
  };
  if (job.grad_output.shape.batch_size == 0) {
    // An empty batch has no sums of its own, and the gradient of nothing is nothing.
    return finish(
        BackwardResult{.sums = job.sums ? *job.sums : ZeroSums(job.normalization->mean.size(), job.from_batch)});
  }
  engine.Backward(std::move(job), std::move(finish));
}

}  // namespace normserve
