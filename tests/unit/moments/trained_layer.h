// A layer that is trained on batches of values, by the definition, and what it then puts out.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "server/moments/diagnosis.h"
#include "tests/unit/moments/value_batch.h"

namespace normserve {

// Members are the test's to change. Starts with mean 0 and variance 1.
struct TrainedLayer {
  RunningAverage average;
  bool biased = false;
  double epsilon = 1e-5;
  std::vector<double> mean, variance;
  std::vector<float> weight;
  int64_t num_batches = 0;
  std::vector<Moments> seen;  // of the batches trained on, oldest first

  explicit TrainedLayer(size_t num_features) : mean(num_features, 0), variance(num_features, 1) {}

  void Train(const ValueBatch& batch) {
    ++num_batches;
    const double k = static_cast<double>(num_batches), m = average.momentum;
    const double newest = average.kind == AverageKind::kCumulative     ? 1 / k
                          : average.kind == AverageKind::kZeroDebiased ? m / (1 - std::pow(1 - m, k))
                                                                       : m;
    seen.push_back(MomentsOf(batch));
    for (size_t c = 0; c < mean.size(); ++c) {
      const double batch_variance = biased ? seen.back().BiasedVariance(c) : seen.back().UnbiasedVariance(c);
      mean[c] += newest * (seen.back().mean[c] - mean[c]);
      variance[c] += newest * (batch_variance - variance[c]);
    }
  }

  double Weight(size_t channel) const { return weight.empty() ? 1 : weight[channel]; }

  NormalizationStatistics Running() const { return {.mean = mean, .variance = variance}; }

  // y without bias, normalised with `statistics`.
  ValueBatch Output(const ValueBatch& batch, const NormalizationStatistics& statistics) const {
    ValueBatch output = batch;
    for (size_t c = 0; c < batch.size(); ++c) {
      for (double& y : output[c]) {
        y = (y - statistics.mean[c]) / std::sqrt(statistics.variance[c] + epsilon) * Weight(c);
      }
    }
    return output;
  }
  ValueBatch Eval(const ValueBatch& batch) const { return Output(batch, Running()); }
  ValueBatch TrainOutput(const ValueBatch& batch) const {
    const Moments moments = MomentsOf(batch);
    NormalizationStatistics statistics{.mean = moments.mean};
    for (size_t c = 0; c < mean.size(); ++c) statistics.variance.push_back(moments.BiasedVariance(c));
    return Output(batch, statistics);
  }

  // The gap by its definition, over every value.
  double MeasuredGap(const ValueBatch& batch) const {
    const ValueBatch eval = Eval(batch), train = TrainOutput(batch);
    double squares = 0;
    for (size_t c = 0; c < batch.size(); ++c) {
      for (size_t i = 0; i < batch[c].size(); ++i) squares += std::pow(eval[c][i] - train[c][i], 2);
    }
    return std::sqrt(squares / static_cast<double>(batch.size() * batch[0].size()));
  }

  DiagnosedLayer Diagnosed() const {
    return {.num_features = mean.size(),
            .statistics = {.running_mean = mean,
                           .running_variance = variance,
                           .num_batches_tracked = num_batches,
                           .weight = weight,
                           .epsilon = epsilon},
            .average = average,
            .running_variance_biased = biased};
  }
  LayerDiagnosis Diagnose(const ValueBatch& batch, absl::Span<const Moments> history = {}) const {
    return *DiagnoseLayer(Diagnosed(), MomentsOf(batch), history);
  }
  // On the newest batch, with up to seven before it, as a server does that was told of no other data.
  LayerDiagnosis DiagnoseNewest(int64_t samples_per_batch = 0) const {
    DiagnosedLayer layer = Diagnosed();
    layer.samples_per_batch = samples_per_batch;
    layer.batch_is_folded = true;
    const size_t earlier = std::min<size_t>(7, seen.size() - 1);
    return *DiagnoseLayer(layer, seen.back(), absl::MakeConstSpan(seen).subspan(seen.size() - 1 - earlier, earlier));
  }
};

}  // namespace normserve
