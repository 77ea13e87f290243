// A compute shader made ready for a device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/vulkan/device.h"

namespace normserve::vulkan {

// A shader as it is embedded in the program: lives as long as the program.
struct Shader {
  const char* id = "";               // unique among the shaders of a program
  absl::Span<const uint32_t> spirv;  // entry point main; SPIR-V 1.4 or later
  uint32_t num_storage_buffers = 0;  // set 0, bindings 0 … num - 1
  uint32_t push_constant_bytes = 0;  // multiple of 4; 0: none
};

// Immutable, thread-safe. The device outlives it.
class ComputePipeline {
 public:
  // `specialization` gives the constants with ids 0, 1, …; it fixes tile sizes and variants, never a tensor's shape.
  // RESOURCE_EXHAUSTED, INTERNAL: what the driver says.
  static absl::StatusOr<std::unique_ptr<ComputePipeline>> Create(Device& device, const Shader& shader,
                                                                 absl::Span<const uint32_t> specialization);
  ~ComputePipeline();
  ComputePipeline(const ComputePipeline&) = delete;
  ComputePipeline& operator=(const ComputePipeline&) = delete;

  VkPipeline handle() const { return pipeline_; }
  VkPipelineLayout layout() const { return layout_; }
  VkDescriptorSetLayout set_layout() const { return set_layout_; }
  uint32_t num_storage_buffers() const { return num_storage_buffers_; }
  uint32_t push_constant_bytes() const { return push_constant_bytes_; }

 private:
  explicit ComputePipeline(Device& device) : device_(device) {}

  Device& device_;
  uint32_t num_storage_buffers_ = 0;
  uint32_t push_constant_bytes_ = 0;
  VkDescriptorSetLayout set_layout_ = VK_NULL_HANDLE;
  VkPipelineLayout layout_ = VK_NULL_HANDLE;
  VkPipeline pipeline_ = VK_NULL_HANDLE;
};

}  // namespace normserve::vulkan
