#include "server/observe/metrics_page.h"

#include <prometheus/text_serializer.h>

#include <iterator>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/observe/gauge_family.h"

namespace normserve {
namespace {

prometheus::MetricFamily Single(const char* name, const char* help, double value) {
  auto family = GaugeFamily(name, help);
  AddGauge(family, {}, value);
  return family;
}

std::vector<prometheus::MetricFamily> ServerGauges(const MetricsPage::Sources& sources) {
  std::vector<prometheus::MetricFamily> families;
  const auto add = [&families](const char* name, const char* help, int64_t value) {
    families.push_back(Single(name, help, static_cast<double>(value)));
  };
  const SessionRegistry::Usage usage = sources.registry.GetUsage();
  add("normserve_sessions", "Sessions open.", usage.num_sessions);
  add("normserve_max_sessions", "Sessions that may be open (--max-sessions).", sources.registry.limits().max_sessions);
  add("normserve_state_bytes", "Bytes that the sessions are charged with.", usage.state_bytes);
  add("normserve_max_state_bytes", "Bytes that they may take (--max-state-bytes).",
      sources.registry.limits().max_state_bytes);
  add("normserve_calls_in_work", "Calls that have no answer yet.", sources.gate.num_calls());
  add("normserve_in_flight_bytes", "Bytes of requests and long replies in work.", sources.gate.num_bytes());
  add("normserve_max_in_flight_bytes", "Bytes that may be in work (--max-in-flight-bytes).",
      sources.gate.max_in_flight_bytes());
  add("normserve_saved_forward_bytes", "Device memory that holds inputs for Backward.",
      sources.saved_forwards.size_bytes());
  add("normserve_max_saved_forward_bytes", "Device memory that may (--max-saved-forward-bytes).",
      sources.saved_forwards.max_bytes());
  add("normserve_draining", "1 once the server is ending and takes no new calls.", sources.gate.is_draining() ? 1 : 0);
  families.push_back(Single("normserve_start_timestamp_seconds", "When the server started, Unix time.",
                            absl::ToDoubleSeconds(sources.server.start_time - absl::UnixEpoch())));
  auto build = GaugeFamily("normserve_build_info", "1, labelled with the server's version.");
  AddGauge(build, {{"version", sources.server.version}}, 1);
  families.push_back(std::move(build));
  auto devices = GaugeFamily("normserve_device_info", "Vulkan devices: 1 the one in use, 0 others.");
  for (const DeviceDescription& device : sources.server.devices) {
    AddGauge(devices,
             {{"device", device.name}, {"uuid", device.uuid}, {"type", device.type}, {"driver", device.driver}},
             device.in_use ? 1 : 0);
  }
  families.push_back(std::move(devices));
  return families;
}

}  // namespace

std::string MetricsPage::Write() {
  std::vector<prometheus::MetricFamily> families = sources_.calls.Collect();
  for (auto more : {ServerGauges(sources_), sessions_.Collect()}) {
    families.insert(families.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  }
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return std::move(text).str();
}

}  // namespace normserve
