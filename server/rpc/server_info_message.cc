#include "server/rpc/server_info_message.h"

#include "server/rpc/config_message.h"

namespace normserve {
namespace {

void WriteTests(const DeviceTests& tests, v1::Device& message) {
  bool exact = true;
  for (const auto& [variant, result] : tests.variants) {
    v1::SelfTest* entry = message.add_self_tests();
    entry->set_variant(variant);
    entry->set_result(result == DeviceTests::Result::kPending  ? v1::SELF_TEST_RESULT_PENDING
                      : result == DeviceTests::Result::kPassed ? v1::SELF_TEST_RESULT_PASSED
                                                               : v1::SELF_TEST_RESULT_FAILED);
    exact = exact && result != DeviceTests::Result::kFailed;
  }
  message.set_bit_exact(exact);
  if (tests.keeps_subnormals.has_value()) {
    message.set_subnormals(*tests.keeps_subnormals ? v1::SUBNORMAL_CLASS_KEPT : v1::SUBNORMAL_CLASS_FLUSHED);
  }
}

}  // namespace

void WriteServerInfo(const ServerDescription& description, const SessionRegistry& registry, v1::ServerInfo& message) {
  const SessionLimits& limits = registry.limits();
  const SessionRegistry::Usage usage = registry.GetUsage();
  message.set_version(description.version);
  message.mutable_start_time()->set_seconds(absl::ToUnixSeconds(description.start_time));
  for (const DeviceDescription& device : description.devices) {
    v1::Device* entry = message.add_devices();
    entry->set_name(device.name);
    entry->set_uuid(device.uuid);
    entry->set_type(device.type);
    entry->set_driver(device.driver);
    entry->set_api_version(device.api_version);
    entry->set_in_use(device.in_use);
    entry->set_reason(device.reason);
    if (device.in_use && description.device_tests) WriteTests(description.device_tests(), *entry);
  }
  v1::Limits* written = message.mutable_limits();
  written->set_max_message_bytes(description.max_message_bytes);
  written->set_max_sessions(limits.max_sessions);
  written->set_max_state_bytes(limits.max_state_bytes);
  written->set_max_num_features(limits.max_num_features);
  written->set_max_in_flight_bytes(description.max_in_flight_bytes);
  written->set_max_saved_forward_bytes(description.max_saved_forward_bytes);
  written->set_max_snapshots(kMaxSnapshots);
  written->set_max_collections(limits.collections.max_open);
  written->set_max_collection_parts(limits.collections.max_parts);
  message.set_default_durability(WriteDurability(registry.default_durability()));
  message.set_num_sessions(usage.num_sessions);
  message.set_state_bytes(usage.state_bytes);
}

}  // namespace normserve
