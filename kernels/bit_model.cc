#include "kernels/bit_model.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "kernels/host_tensor.h"

namespace normserve {
namespace {

// Values of a leaf of the merge tree.
constexpr size_t kChunkValues = 16;

// ---- Pairs (shaders/pair.glsl). This file is compiled without contraction, so each operation rounds once.

struct Pair {
  float hi = 0;
  float lo = 0;
};

float IfFinite(float leading, float lost) { return std::isfinite(leading) ? lost : 0.0f; }

float UpperHalf(float a) { return std::bit_cast<float>(std::bit_cast<uint32_t>(a) & 0xfffff000u); }

Pair TwoSum(float a, float b) {
  const float sum = a + b;
  const float b_part = sum - a;
  const float a_part = sum - b_part;
  return {sum, (a - a_part) + (b - b_part)};
}

Pair FastTwoSum(float a, float b) {
  const float sum = a + b;
  return {sum, b - (sum - a)};
}

Pair TwoProduct(float a, float b) {
  const float product = a * b;
  const float a_hi = UpperHalf(a), b_hi = UpperHalf(b);
  const float a_lo = a - a_hi, b_lo = b - b_hi;
  return {product, (((a_hi * b_hi - product) + a_hi * b_lo) + a_lo * b_hi) + a_lo * b_lo};
}

Pair ToPair(float hi, float lo) { return std::isfinite(hi) ? FastTwoSum(hi, lo) : Pair{hi, 0}; }

Pair AddPairs(Pair a, Pair b) {
  const Pair sum = TwoSum(a.hi, b.hi);
  return ToPair(sum.hi, (a.lo + b.lo) + sum.lo);
}

Pair MultiplyPairs(Pair a, Pair b) {
  const Pair product = TwoProduct(a.hi, b.hi);
  return ToPair(product.hi, product.lo + (a.hi * b.lo + a.lo * b.hi));
}

Pair PairOf(double value) {
  const auto hi = static_cast<float>(value);
  return {hi, std::isfinite(hi) ? static_cast<float>(value - hi) : 0.0f};
}

double Value(Pair pair) { return static_cast<double>(pair.hi) + static_cast<double>(pair.lo); }

// ---- The merge tree: node j of level l stands for the chunks [j * 2^l, (j + 1) * 2^l).

// `make(chunk)` gives a leaf, `merge(left, right, level, right_index)` a node of level + 1.
template <typename Node, typename Make, typename Merge>
Node Tree(uint64_t chunks, int level, uint64_t index, const Make& make, const Merge& merge) {
  if (level == 0) return make(index);
  const Node left = Tree<Node>(chunks, level - 1, 2 * index, make, merge);
  // Nothing to the right: the left stands for its parent too.
  if (((2 * index + 1) << (level - 1)) >= chunks) return left;
  return merge(left, Tree<Node>(chunks, level - 1, 2 * index + 1, make, merge), level - 1, 2 * index + 1);
}

template <typename Node, typename Make, typename Merge>
Node WholeTree(uint64_t chunks, const Make& make, const Merge& merge) {
  return Tree<Node>(chunks, std::bit_width(chunks - 1), 0, make, merge);
}

// ---- Moments (shaders/moments.comp, moments_node.glsl)

struct MomentsNode {
  Pair mean;
  float m2 = 0;
};

// The sum of 16 terms as four vectors of four: vectors first, then components.
float SumOfSixteen(const std::array<float, kChunkValues>& t) {
  std::array<float, 4> sums;
  for (size_t i = 0; i < 4; ++i) sums[i] = (t[i] + t[4 + i]) + (t[8 + i] + t[12 + i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

MomentsNode MomentsOfChunk(absl::Span<const float> values) {
  const float pivot = values[0];
  const size_t count = values.size();
  std::array<float, kChunkValues> difference = {}, squares = {};
  for (size_t i = 0; i < count; ++i) difference[i] = values[i] - pivot;
  const float mean = SumOfSixteen(difference) * (1.0f / static_cast<float>(count));
  for (size_t i = 0; i < count; ++i) squares[i] = (difference[i] - mean) * (difference[i] - mean);
  return {TwoSum(pivot, mean), SumOfSixteen(squares)};
}

MomentsNode MergeMoments(const MomentsNode& left, const MomentsNode& right, double left_count, double right_count) {
  const auto share = static_cast<float>(right_count / (left_count + right_count));
  const auto factor = static_cast<float>(left_count * right_count / (left_count + right_count));
  const float delta = (right.mean.hi - left.mean.hi) + (right.mean.lo - left.mean.lo);
  const Pair sum = TwoSum(left.mean.hi, delta * share);
  const float rest = left.mean.lo + sum.lo;
  const float hi = sum.hi + rest;
  return {{hi, rest - (hi - sum.hi)}, (left.m2 + right.m2) + (delta * delta) * factor};
}

absl::Span<const float> Chunk(const std::vector<float>& values, uint64_t chunk) {
  return absl::MakeConstSpan(values).subspan(chunk * kChunkValues, kChunkValues);
}

uint64_t NumChunks(const std::vector<float>& values) { return (values.size() + kChunkValues - 1) / kChunkValues; }

MomentsNode MomentsOfChannel(const std::vector<float>& x) {
  auto values_of = [&](int level, uint64_t index) {
    const uint64_t first = (index << level) * kChunkValues, full = uint64_t{kChunkValues} << level;
    return static_cast<double>(std::min<uint64_t>(full, x.size() - first));
  };
  return WholeTree<MomentsNode>(
      NumChunks(x), [&](uint64_t chunk) { return MomentsOfChunk(Chunk(x, chunk)); },
      [&](const MomentsNode& left, const MomentsNode& right, int level, uint64_t right_index) {
        return MergeMoments(left, right, values_of(level, right_index - 1), values_of(level, right_index));
      });
}

// 1 / sqrt(v) (shaders/normalise.comp).
float InverseRoot(float v) {
  const float half_v = 0.5f * v;
  float r = std::bit_cast<float>(0x5f375a86u - (std::bit_cast<uint32_t>(v) >> 1));
  for (int i = 0; i < 4; ++i) {
    const float t = half_v * r;
    const float u = 0.5f - t * r;
    r = r + r * u;
  }
  return r;
}

// ---- Gradients (shaders/gradient_sums.comp, gradient_node.glsl, gradient_input.comp)

struct GradientNode {
  Pair g, product, xc, square;
};

// Adds term + rest to a sum that keeps what rounding loses.
void Accumulate(Pair& sum, float term, float rest) {
  const Pair added = TwoSum(sum.hi, term);
  sum = {added.hi, sum.lo + (added.lo + rest)};
}

Pair AcrossComponents(const std::array<Pair, 4>& sums) {
  return AddPairs(AddPairs(sums[0], sums[1]), AddPairs(sums[2], sums[3]));
}

// What a channel's x is centred with: (x - mean) * power, a power of two that brings it near 1.
struct Centring {
  Pair mean;
  float power = 1;
};

GradientNode GradientsOfChunk(absl::Span<const float> x, absl::Span<const float> g, const Centring& centring) {
  std::array<Pair, 4> sums_g, sums_product, sums_xc, sums_square;
  for (size_t i = 0; i < x.size(); ++i) {
    const Pair difference = TwoSum(x[i], -centring.mean.hi);
    const float upper = difference.hi * centring.power;
    const Pair xc = TwoSum(upper, IfFinite(upper, (difference.lo - centring.mean.lo) * centring.power));
    const Pair p = TwoProduct(g[i], xc.hi), square = TwoProduct(xc.hi, xc.hi);
    Accumulate(sums_g[i % 4], g[i], 0);
    Accumulate(sums_product[i % 4], p.hi, p.lo + g[i] * xc.lo);
    Accumulate(sums_xc[i % 4], xc.hi, xc.lo);
    Accumulate(sums_square[i % 4], square.hi, square.lo + 2 * (xc.hi * xc.lo));
  }
  return {AcrossComponents(sums_g), AcrossComponents(sums_product), AcrossComponents(sums_xc),
          AcrossComponents(sums_square)};
}

GradientNode GradientsOfChannel(const std::vector<float>& x, const std::vector<float>& g, const Centring& centring) {
  return WholeTree<GradientNode>(
      NumChunks(x), [&](uint64_t chunk) { return GradientsOfChunk(Chunk(x, chunk), Chunk(g, chunk), centring); },
      [](const GradientNode& left, const GradientNode& right, int, uint64_t) {
        return GradientNode{AddPairs(left.g, right.g), AddPairs(left.product, right.product),
                            AddPairs(left.xc, right.xc), AddPairs(left.square, right.square)};
      });
}

// What the gradient of a channel's input is computed with.
struct GradientConstants {
  Centring centring;
  Pair mean_g, k;
  float mean_xc = 0, scale = 0;
};

float InputGradient(float x, float g, const GradientConstants& c) {
  const Pair u = TwoSum(x, -c.centring.mean.hi);
  const Pair xc = TwoSum(u.hi * c.centring.power, (u.lo - c.centring.mean.lo) * c.centring.power - c.mean_xc);
  const Pair r = TwoSum(g, -c.mean_g.hi);
  const Pair p = TwoProduct(xc.hi, c.k.hi);
  const Pair t = TwoSum(r.hi, -p.hi);
  const float rest = (((r.lo - c.mean_g.lo) + t.lo) - p.lo) - (xc.hi * c.k.lo + xc.lo * c.k.hi);
  return (t.hi + IfFinite(t.hi, rest)) * c.scale;
}

// Visits the positions of a channel's values in the tensor, in the tree's order.
template <typename Visitor>
void ForEachPosition(const BatchShape& shape, int64_t channel, Visitor visit) {
  for (int64_t n = 0; n < shape.batch_size; ++n) {
    const int64_t begin = (n * shape.num_features + channel) * shape.spatial_size;
    for (int64_t s = 0; s < shape.spatial_size; ++s) visit(static_cast<size_t>(begin + s));
  }
}

std::vector<float> ChannelValues(const BatchShape& shape, const std::vector<float>& tensor, int64_t channel) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>(shape.ValuesPerChannel()));
  ForEachPosition(shape, channel, [&](size_t i) { values.push_back(tensor[i]); });
  return values;
}

Centring CentringOf(const BackwardJob& job, size_t channel) {
  Centring centring = {.mean = PairOf(job.normalization->mean[channel])};
  double variance = job.normalization->variance[channel];
  if (!(variance > 0)) variance = job.epsilon;
  if (!(variance > 0) || !std::isfinite(variance)) return centring;
  // Half the exponent of the variance, which is in [1/2, 1) * 2^exponent.
  const int half = static_cast<int>(std::floor((std::ilogb(variance) + 1) / 2.0));
  centring.power = std::ldexp(1.0f, std::clamp(-half, -126, 126));
  return centring;
}

// 1 / a; 1 where a is 0.
Pair Reciprocal(Pair a) {
  if (a.hi == 0) a.hi = 1;
  float r = std::bit_cast<float>(0x7ef311c7u - std::bit_cast<uint32_t>(a.hi));
  for (int i = 0; i < 3; ++i) r = r + r * (1.0f - a.hi * r);
  const Pair product = MultiplyPairs(a, {r, 0});
  const Pair error = AddPairs({1, 0}, {-product.hi, -product.lo});
  return AddPairs({r, 0}, MultiplyPairs({r, 0}, error));
}

// a - b * c.
Pair SubtractProduct(Pair a, Pair b, Pair c) {
  const Pair product = MultiplyPairs(b, c);
  return AddPairs(a, {-product.hi, -product.lo});
}

// The sums that came with the job, as the sums of a tree.
GradientNode GivenNode(const BackwardJob& job, size_t c) {
  const GradientSums& sums = *job.sums;
  const double power = CentringOf(job, c).power, rest = sums.centred_input[c];
  const auto count = static_cast<double>(sums.count);
  const double square = sums.centred_input_squared.empty()
                            ? job.normalization->variance[c] * count + rest / count * rest
                            : sums.centred_input_squared[c];
  return {PairOf(sums.grad_output[c]), PairOf(sums.product[c] * power), PairOf(rest * power),
          PairOf(square * power * power)};
}

GradientConstants ConstantsOf(const BackwardJob& job, size_t channel, const GradientNode& sums, int64_t count) {
  double shifted = job.normalization->variance[channel] + job.epsilon;
  if (job.from_batch && shifted == 0) shifted = 1;
  GradientConstants c = {.centring = CentringOf(job, channel),
                         .scale = static_cast<float>(job.parameters->weight[channel] / std::sqrt(shifted))};
  const Pair share = PairOf(1.0 / static_cast<double>(count));
  c.mean_g = MultiplyPairs(sums.g, share);
  const Pair mean_xc = MultiplyPairs(sums.xc, share);
  const Pair g = {IfFinite(sums.g.hi, sums.g.hi), sums.g.lo};
  const Pair covariance = MultiplyPairs(SubtractProduct(sums.product, mean_xc, g), share);
  const Pair variance = MultiplyPairs(SubtractProduct(sums.square, mean_xc, sums.xc), share);
  const double power = c.centring.power;
  c.mean_xc = mean_xc.hi;
  const Pair epsilon = PairOf(std::min(job.epsilon * power * power, 0x1p100));
  const Pair with_epsilon = AddPairs(variance, epsilon), inverse = Reciprocal(with_epsilon);
  c.k = MultiplyPairs(covariance, inverse);
  if (job.from_batch && count == 2) {
    c.k = {c.k.hi * 0, c.k.lo * 0};
    if (with_epsilon.hi != 0) c.scale *= MultiplyPairs(epsilon, inverse).hi;
  }
  return c;
}

}  // namespace

void BitModelEngine::Forward(ForwardJob job, ForwardDone done) {
  const BatchShape& shape = job.input.shape;
  const std::vector<float> x = ReadTensor(job.input);
  std::vector<float> y(x.size());
  const bool need_moments = job.given == nullptr || job.want_moments;
  Moments moments{.count = shape.ValuesPerChannel()};
  for (int64_t c = 0; c < shape.num_features; ++c) {
    Pair mean;
    float scale = 0;
    if (need_moments) {
      const MomentsNode node = MomentsOfChannel(ChannelValues(shape, x, c));
      moments.mean.push_back(Value(node.mean));
      moments.m2.push_back(node.m2);
      mean = node.mean;
      const auto count_share = static_cast<float>(1.0 / static_cast<double>(moments.count));
      const float variance = node.m2 * count_share;
      scale = InverseRoot(variance + static_cast<float>(std::min(job.epsilon, 0x1p126))) * job.parameters->weight[c];
    }
    if (job.given != nullptr) {
      mean = PairOf(job.given->mean[c]);
      scale = static_cast<float>(job.parameters->weight[c] / std::sqrt(job.given->variance[c] + job.epsilon));
    }
    ForEachPosition(shape, c, [&](size_t i) { y[i] = ((x[i] - mean.hi) - mean.lo) * scale + job.parameters->bias[c]; });
  }
  ForwardResult result{.output = WriteTensor(job.input.type, y)};
  if (need_moments) result.moments = std::move(moments);
  if (job.keep_input) result.kept_input = KeepTensor(job.input);
  std::move(done)(std::move(result));
}

void BitModelEngine::Backward(BackwardJob job, BackwardDone done) {
  const BatchShape& shape = job.grad_output.shape;
  const ElementType type = job.grad_output.type;
  std::vector<float> g = ReadTensor(job.grad_output);
  const bool needs_input = !job.sums || (job.from_batch && job.want_grad_input);
  const std::vector<float> x = needs_input ? ReadInput(job) : std::vector<float>();
  BackwardResult result{.sums = job.sums.value_or(GradientSums{.count = shape.ValuesPerChannel()})};
  GradientSums& sums = result.sums;
  for (int64_t i = 0; i < shape.num_features; ++i) {
    const auto c = static_cast<size_t>(i);
    GradientNode node;
    if (job.sums) {
      node = GivenNode(job, c);
    } else {
      const Centring centring = CentringOf(job, c);
      const double power = centring.power;
      node = GradientsOfChannel(ChannelValues(shape, x, i), ChannelValues(shape, g, i), centring);
      sums.grad_output.push_back(Value(node.g));
      sums.product.push_back(Value(node.product) / power);
      sums.centred_input.push_back(Value(node.xc) / power);
      if (job.from_batch) sums.centred_input_squared.push_back(Value(node.square) / power / power);
    }
    if (!job.want_grad_input) continue;
    const GradientConstants constants = ConstantsOf(job, c, node, sums.count);
    ForEachPosition(shape, i, [&](size_t at) {
      g[at] = job.from_batch ? InputGradient(x[at], g[at], constants) : g[at] * constants.scale;
    });
  }
  if (job.want_grad_input) result.grad_input = WriteTensor(type, g);
  std::move(done)(std::move(result));
}

}  // namespace normserve
