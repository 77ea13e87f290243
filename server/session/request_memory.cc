#include "server/session/request_memory.h"

#include <utility>

#include "kernels/check.h"

namespace normserve {
namespace {

int64_t SizeBytes(const AffineParameters& parameters) {
  return static_cast<int64_t>((parameters.weight.size() + parameters.bias.size()) * sizeof(float));
}

int64_t SizeBytes(const NormalizationStatistics& statistics) {
  return static_cast<int64_t>((statistics.mean.size() + statistics.variance.size()) * sizeof(double));
}

}  // namespace

RequestMemory::RequestMemory(size_t max_requests, VectorLimits limits)
    : max_requests_(max_requests), limits_(std::move(limits)) {}

RequestMemory::~RequestMemory() {
  if (limits_.budget != nullptr) limits_.budget->Give(vector_bytes_);
}

int64_t RequestMemory::AllowedBytes() const {
  return limits_.budget != nullptr && limits_.budget->IsExceeded() ? limits_.scarce_bytes : limits_.max_bytes;
}

void RequestMemory::Remember(const std::string& request_id, const Fingerprint& fingerprint, Answer answer) {
  if (request_id.empty()) return;
  RetainVectors(answer);
  const bool is_new = entries_.try_emplace(request_id, Entry{fingerprint, std::move(answer)}).second;
  NORMSERVE_CHECK(is_new);
  order_.push_back(request_id);
  if (order_.size() > max_requests_) {
    const auto oldest = entries_.find(order_.front());
    DropVectors(oldest->second.answer);
    entries_.erase(oldest);
    order_.pop_front();
    if (num_without_vectors_ > 0) --num_without_vectors_;
  }
  while (vector_bytes_ > AllowedBytes() && num_without_vectors_ < order_.size()) {
    DropVectors(entries_.find(order_[num_without_vectors_++])->second.answer);
  }
}

void RequestMemory::Retain(const void* vectors, const Vectors& description) {
  Vectors& entry = vectors_.try_emplace(vectors, description).first->second;
  if (entry.users++ > 0) return;
  vector_bytes_ += entry.size_bytes;
  if (limits_.budget != nullptr) limits_.budget->Take(entry.size_bytes);
}

void RequestMemory::Release(const void* vectors) {
  const auto found = vectors_.find(vectors);
  if (--found->second.users > 0) return;
  vector_bytes_ -= found->second.size_bytes;
  if (limits_.budget != nullptr) limits_.budget->Give(found->second.size_bytes);
  released_.emplace_back(found->second.kind, found->second.version);
  vectors_.erase(found);
}

void RequestMemory::RetainVectors(const Answer& answer) {
  const auto* forward = std::get_if<ForwardAnswer>(&answer);
  if (forward == nullptr) return;
  if (forward->parameters != nullptr) {
    Retain(forward->parameters.get(), {.size_bytes = SizeBytes(*forward->parameters),
                                       .kind = VectorKind::kParameters,
                                       .version = forward->parameters_version});
  }
  if (forward->running != nullptr) {
    Retain(forward->running.get(), {.size_bytes = SizeBytes(*forward->running),
                                    .kind = VectorKind::kRunning,
                                    .version = forward->running_version});
  }
}

void RequestMemory::DropVectors(Answer& answer) {
  auto* forward = std::get_if<ForwardAnswer>(&answer);
  if (forward == nullptr) return;
  if (forward->parameters != nullptr) Release(forward->parameters.get());
  if (forward->running != nullptr) Release(forward->running.get());
  forward->parameters.reset();
  forward->running.reset();
}

}  // namespace normserve
