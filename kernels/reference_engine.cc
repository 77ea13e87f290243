#include "kernels/reference_engine.h"

#include <cmath>
#include <cstring>
#include <utility>

namespace normserve {
namespace {

// A sum that keeps what each addition rounds away.
class CompensatedSum {
 public:
  void Add(double value) {
    const double sum = sum_ + value;
    lost_ += std::abs(sum_) >= std::abs(value) ? (sum_ - sum) + value : (value - sum) + sum_;
    sum_ = sum;
  }
  double Total() const { return std::isfinite(lost_) ? sum_ + lost_ : sum_; }

 private:
  double sum_ = 0;
  double lost_ = 0;
};

std::vector<float> Join(const InputTensor& input) {
  std::vector<float> values(static_cast<size_t>(input.shape.NumValues()));
  auto* to = reinterpret_cast<std::byte*>(values.data());
  for (absl::Span<const std::byte> piece : input.pieces) {
    std::memcpy(to, piece.data(), piece.size());
    to += piece.size();
  }
  return values;
}

// Calls visit(position in the tensor) for every value of `channel`.
template <typename Visitor>
void ForEachValue(const BatchShape& shape, int64_t channel, Visitor visit) {
  for (int64_t n = 0; n < shape.batch_size; ++n) {
    const int64_t begin = (n * shape.num_features + channel) * shape.spatial_size;
    for (int64_t s = 0; s < shape.spatial_size; ++s) visit(begin + s);
  }
}

Moments MomentsOf(const BatchShape& shape, const std::vector<float>& x) {
  Moments moments{.count = shape.ValuesPerChannel()};
  for (int64_t c = 0; c < shape.num_features; ++c) {
    // Sums of differences to the first value: a constant channel has exactly its value as mean.
    const double first = x[static_cast<size_t>(c * shape.spatial_size)];
    CompensatedSum sum;
    ForEachValue(shape, c, [&](int64_t i) { sum.Add(x[i] - first); });
    const double mean = first + sum.Total() / static_cast<double>(moments.count);
    CompensatedSum squares;
    ForEachValue(shape, c, [&](int64_t i) { squares.Add((x[i] - mean) * (x[i] - mean)); });
    moments.mean.push_back(mean);
    moments.m2.push_back(squares.Total());
  }
  return moments;
}

}  // namespace

void ReferenceEngine::Forward(ForwardJob job, ForwardDone done) {
  const BatchShape& shape = job.input.shape;
  const std::vector<float> x = Join(job.input);
  ForwardResult result;
  if (job.given == nullptr || job.want_moments) result.moments = MomentsOf(shape, x);

  auto output = std::make_shared<std::vector<float>>(x.size());
  for (int64_t c = 0; c < shape.num_features; ++c) {
    const double mean = job.given ? job.given->mean[c] : result.moments->mean[c];
    const double variance = job.given ? job.given->variance[c] : result.moments->BiasedVariance(c);
    double root = std::sqrt(variance + job.epsilon);
    // A constant channel without epsilon becomes its bias, not 0/0.
    if (job.given == nullptr && root == 0) root = 1;
    const double weight = job.parameters->weight[c], bias = job.parameters->bias[c];
    ForEachValue(shape, c, [&](int64_t i) { (*output)[i] = static_cast<float>((x[i] - mean) / root * weight + bias); });
  }
  result.output.pieces = {
      absl::MakeConstSpan(reinterpret_cast<const std::byte*>(output->data()), output->size() * sizeof(float))};
  result.output.owner = std::move(output);
  std::move(done)(std::move(result));
}

}  // namespace normserve
