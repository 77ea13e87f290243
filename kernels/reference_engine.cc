#include "kernels/reference_engine.h"

#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/host_tensor.h"

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

// `value` rounded once: to float32 by way of odd rounding where 16 bits are to follow.
float RoundTowards(ElementType type, double value) {
  const auto nearest = static_cast<float>(value);
  if (type == ElementType::kFloat32 || static_cast<double>(nearest) == value || !std::isfinite(nearest)) return nearest;
  // The neighbour on the other side, if the last bit is even: never a tie that double did not have.
  if ((std::bit_cast<uint32_t>(nearest) & 1u) != 0) return nearest;
  const float towards =
      value > nearest ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::infinity();
  return std::nextafter(nearest, towards);
}

OutputTensor WriteRounded(ElementType type, const std::vector<double>& values) {
  std::vector<float> rounded;
  rounded.reserve(values.size());
  for (double value : values) rounded.push_back(RoundTowards(type, value));
  return WriteTensor(type, rounded);
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

GradientSums SumsOf(const BatchShape& shape, const std::vector<float>& x, const std::vector<float>& g,
                    const std::vector<double>& mean, bool from_batch) {
  GradientSums sums{.count = shape.ValuesPerChannel()};
  for (int64_t c = 0; c < shape.num_features; ++c) {
    CompensatedSum grad_output, product, centred_input, squared;
    ForEachValue(shape, c, [&](int64_t i) {
      const double centred = x[i] - mean[c];
      grad_output.Add(g[i]);
      product.Add(g[i] * centred);
      centred_input.Add(centred);
      squared.Add(centred * centred);
    });
    sums.grad_output.push_back(grad_output.Total());
    sums.product.push_back(product.Total());
    sums.centred_input.push_back(centred_input.Total());
    if (from_batch) sums.centred_input_squared.push_back(squared.Total());
  }
  return sums;
}

}  // namespace

void ReferenceEngine::Forward(ForwardJob job, ForwardDone done) {
  const BatchShape& shape = job.input.shape;
  const std::vector<float> x = ReadTensor(job.input);
  ForwardResult result;
  if (job.given == nullptr || job.want_moments) result.moments = MomentsOf(shape, x);

  std::vector<double> output(x.size());
  for (int64_t c = 0; c < shape.num_features; ++c) {
    const double mean = job.given ? job.given->mean[c] : result.moments->mean[c];
    const double variance = job.given ? job.given->variance[c] : result.moments->BiasedVariance(c);
    double root = std::sqrt(variance + job.epsilon);
    // A constant channel without epsilon becomes its bias, not 0/0.
    if (job.given == nullptr && root == 0) root = 1;
    const double weight = job.parameters->weight[c], bias = job.parameters->bias[c];
    ForEachValue(shape, c, [&](int64_t i) { output[i] = (x[i] - mean) / root * weight + bias; });
  }
  result.output = WriteRounded(job.input.type, output);
  if (job.keep_input) result.kept_input = KeepTensor(job.input);
  std::move(done)(std::move(result));
}

void ReferenceEngine::Backward(BackwardJob job, BackwardDone done) {
  const BatchShape& shape = job.grad_output.shape;
  const ElementType type = job.grad_output.type;
  const std::vector<float> g = ReadTensor(job.grad_output);
  const bool needs_input = !job.sums || (job.from_batch && job.want_grad_input);
  const std::vector<float> x = needs_input ? ReadInput(job) : std::vector<float>();
  const NormalizationStatistics& used = *job.normalization;
  BackwardResult result{.sums = job.sums ? *job.sums : SumsOf(shape, x, g, used.mean, job.from_batch)};
  if (job.want_grad_input) {
    std::vector<double> output(g.size());
    const auto count = static_cast<double>(result.sums.count);
    for (int64_t c = 0; c < shape.num_features; ++c) {
      double variance = used.variance[c], shifted = variance + job.epsilon;
      // A constant channel without epsilon was divided by 1.
      if (job.from_batch && shifted == 0) shifted = 1;
      double scale = job.parameters->weight[c] / std::sqrt(shifted);
      if (!job.from_batch) {
        ForEachValue(shape, c, [&](int64_t i) { output[i] = g[i] * scale; });
        continue;
      }
      const double mean_g = result.sums.grad_output[c] / count;
      const double mean_x = result.sums.centred_input[c] / count;
      // A sum of g that is not finite leaves nothing to correct.
      const double g_sum = std::isfinite(result.sums.grad_output[c]) ? result.sums.grad_output[c] : 0;
      const std::vector<double>& squares = result.sums.centred_input_squared;
      if (!squares.empty()) {
        variance = (squares[c] - mean_x * result.sums.centred_input[c]) / count;
        shifted = variance + job.epsilon;
        if (shifted == 0) shifted = 1;
      }
      double k = (result.sums.product[c] - mean_x * g_sum) / count / shifted;
      if (count == 2) {
        k *= 0;
        if (variance + job.epsilon != 0) scale *= job.epsilon / shifted;
      }
      ForEachValue(shape, c, [&](int64_t i) {
        const double centred = (x[i] - used.mean[c]) - mean_x;
        output[i] = ((g[i] - mean_g) - centred * k) * scale;
      });
    }
    result.grad_input = WriteRounded(type, output);
  }
  std::move(done)(std::move(result));
}

}  // namespace normserve
