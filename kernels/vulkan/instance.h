// The Vulkan instance: the loader, the drivers behind it, and the validation layer when asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "kernels/vulkan/vulkan_api.h"

namespace normserve::vulkan {

// One report of the Khronos validation layer.
struct ValidationMessage {
  bool is_error = true;  // else a warning
  std::string id;        // "SYNC-HAZARD-READ-AFTER-WRITE", "VUID-vkCmdDispatch-…"
  std::string text;
};

struct InstanceOptions {
  // Loads the Khronos validation layer with synchronisation validation, per command buffer. Its mode across queue
  // submits stays off: version 1.3.239 reports submits there that a wait on the host separates correctly.
  bool validation = false;
  // Called for each message from the thread whose call caused it, inside that call: must not call Vulkan.
  std::function<void(const ValidationMessage&)> on_message;
};

// Thread-safe. Outlives everything made from it.
class Instance {
 public:
  // FAILED_PRECONDITION, saying what to install: no Vulkan loader, a loader older than 1.2, no driver, or validation
  // asked for and the layer missing.
  static absl::StatusOr<std::unique_ptr<Instance>> Create(const InstanceOptions& options = {});
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  VkInstance handle() const { return instance_; }

  // Every validation message so far as "id: text", oldest first; the first 1000 are kept.
  std::vector<std::string> validation_messages() const;

 private:
  Instance() = default;
  static VKAPI_ATTR VkBool32 VKAPI_CALL OnMessage(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                  VkDebugUtilsMessageTypeFlagsEXT type,
                                                  const VkDebugUtilsMessengerCallbackDataEXT* data, void* user_data);

  VkInstance instance_ = VK_NULL_HANDLE;
  VkDebugUtilsMessengerEXT messenger_ = VK_NULL_HANDLE;
  std::function<void(const ValidationMessage&)> on_message_;

  mutable absl::Mutex mu_;
  std::vector<std::string> messages_ ABSL_GUARDED_BY(mu_);
};

// The version of the loader as "1.3.239"; FAILED_PRECONDITION if there is none.
absl::StatusOr<std::string> LoaderVersion();

}  // namespace normserve::vulkan
