// Batches of values, their moments by brute force, and draws that are the same everywhere.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <utility>
#include <vector>

#include "kernels/batch_norm.h"

namespace normserve {

// The values of each channel.
using ValueBatch = std::vector<std::vector<double>>;

// Two-pass, in long double; `values` has a channel or more, all equally long.
inline Moments MomentsOf(const ValueBatch& values) {
  Moments moments{.count = static_cast<int64_t>(values[0].size())};
  for (const std::vector<double>& channel : values) {
    long double sum = 0, m2 = 0;
    for (double value : channel) sum += value;
    const long double mean = sum / channel.size();
    for (double value : channel) m2 += (value - mean) * (value - mean);
    moments.mean.push_back(static_cast<double>(mean));
    moments.m2.push_back(static_cast<double>(m2));
  }
  return moments;
}

// All values of both.
inline ValueBatch Joined(ValueBatch left, const ValueBatch& right) {
  if (left.empty()) return right;
  for (size_t c = 0; c < left.size(); ++c) left[c].insert(left[c].end(), right[c].begin(), right[c].end());
  return left;
}

// Normal values by Box and Muller: the standard library's distributions differ from library to library.
class Draw {
 public:
  explicit Draw(uint64_t seed) : bits_(seed) {}

  // In (0, 1).
  double Uniform() { return (static_cast<double>(bits_() >> 11) + 0.5) * 0x1p-53; }
  double Normal() {
    if (const double spare = std::exchange(spare_, 0); spare != 0) return spare;
    const double radius = std::sqrt(-2 * std::log(Uniform())), angle = 2 * std::numbers::pi * Uniform();
    spare_ = radius * std::sin(angle);
    return radius * std::cos(angle);
  }
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(bits_() % static_cast<uint64_t>(high - low + 1));
  }

  // `count` values of each of `num_features` channels, normal with this mean and standard deviation.
  ValueBatch Batch(int64_t count, size_t num_features, double mean, double deviation) {
    ValueBatch batch(num_features);
    for (auto& channel : batch) {
      for (int64_t i = 0; i < count; ++i) channel.push_back(mean + deviation * Normal());
    }
    return batch;
  }

  template <typename T>
  void Shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[bits_() % i]);
  }

 private:
  std::mt19937_64 bits_;
  double spare_ = 0;  // the second of a pair, if not 0
};

}  // namespace normserve
