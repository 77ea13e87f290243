// Gauges that are made when they are asked for.
#pragma once

#include <prometheus/metric_family.h>

#include <utility>
#include <vector>

namespace normserve {

inline prometheus::MetricFamily GaugeFamily(const char* name, const char* help) {
  return {.name = name, .help = help, .type = prometheus::MetricType::Gauge};
}

inline void AddGauge(prometheus::MetricFamily& family, std::vector<prometheus::ClientMetric::Label> label,
                     double value) {
  prometheus::ClientMetric metric;
  metric.label = std::move(label);
  metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
}

}  // namespace normserve
