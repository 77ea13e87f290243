#include "server/rpc/backward_messages.h"

#include <memory>
#include <utility>
#include <vector>

#include "normserve/v1/batch_norm_service.pb.h"
#include "server/rpc/kept_fields.h"
#include "server/rpc/split_message.h"
#include "server/rpc/tensor_message.h"
#include "server/session/field_error.h"

namespace normserve {
namespace {

template <typename Number, typename Field>
std::vector<Number> ToVector(const Field& field) {
  return std::vector<Number>(field.begin(), field.end());
}

GradientSums ReadSums(const v1::GradientSums& message) {
  return {.count = message.count(),
          .grad_output = ToVector<double>(message.grad_output()),
          .product = ToVector<double>(message.grad_output_centered_input()),
          .centred_input = ToVector<double>(message.centered_input()),
          .centred_input_squared = ToVector<double>(message.centered_input_squared())};
}

void WriteSums(const GradientSums& sums, v1::GradientSums& message) {
  message.set_count(sums.count);
  message.mutable_grad_output()->Add(sums.grad_output.begin(), sums.grad_output.end());
  message.mutable_grad_output_centered_input()->Add(sums.product.begin(), sums.product.end());
  message.mutable_centered_input()->Add(sums.centred_input.begin(), sums.centred_input.end());
  message.mutable_centered_input_squared()->Add(sums.centred_input_squared.begin(), sums.centred_input_squared.end());
}

}  // namespace

absl::StatusOr<BackwardRequest> ReadBackwardRequest(const grpc::ByteBuffer& message) {
  auto slices = std::make_shared<std::vector<grpc::Slice>>();
  if (!message.Dump(slices.get()).ok()) return FieldError("message", "the message cannot be read: send it again");
  auto split = SplitBackwardRequest(*slices);
  if (!split.ok()) return split.status();
  v1::BackwardRequest header;
  if (!header.ParseFromString(split->header)) {
    return FieldError("message", "the message is no serialised normserve.v1.BackwardRequest");
  }
  if (absl::Status status = CheckKeptFields(header); !status.ok()) return status;
  BackwardRequest request{.name = header.name(),
                          .guard = {.expected_uid = header.expected_uid()},
                          .saved_forward = header.saved_forward(),
                          .stop_at_sums = header.stop_at_sums(),
                          .release_saved_forward = header.release_saved_forward()};
  if (header.has_expected_generation()) request.guard.expected_generation = header.expected_generation();
  if (header.has_start_from_sums()) request.start_from_sums = ReadSums(header.start_from_sums());
  auto gradient = ReadTensor("grad_output", header.grad_output(), std::move(split->values), slices);
  if (!gradient.ok()) return gradient.status();
  request.grad_output = *std::move(gradient);
  if (!header.has_resent()) return request;

  const v1::Normalization& normalization = header.resent().normalization();
  auto input = ReadTensor("resent.input", header.resent().input(), std::move(split->resent_values), std::move(slices));
  if (!input.ok()) return input.status();
  request.resent = ResentForward{.normalization = {.mean = ToVector<double>(normalization.mean()),
                                                   .variance = ToVector<double>(normalization.var())},
                                 .weight = ToVector<float>(normalization.weight()),
                                 .from_batch = normalization.from_batch(),
                                 .input = *std::move(input)};
  return request;
}

grpc::ByteBuffer WriteBackwardReply(const BackwardReply& reply, const CallGate::Pass& bytes) {
  v1::BackwardReply message;
  WriteSums(reply.sums, *message.mutable_sums());
  message.mutable_grad_weight()->Add(reply.grad_weight.begin(), reply.grad_weight.end());
  message.mutable_grad_bias()->Add(reply.grad_bias.begin(), reply.grad_bias.end());
  message.set_generation(reply.generation);
  message.set_uid(reply.uid);
  if (reply.dimensions.empty()) {
    const grpc::Slice text(message.SerializeAsString());
    return grpc::ByteBuffer(&text, 1);
  }
  return WriteWithTensor(
      message.SerializeAsString(), v1::BackwardReply::kGradInputFieldNumber,
      {.type = reply.type, .layout = reply.layout, .dimensions = reply.dimensions, .values = reply.grad_input}, bytes);
}

}  // namespace normserve
