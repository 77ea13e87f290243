#include "kernels/vulkan/pipeline.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/vulkan/float_controls.h"
#include "kernels/vulkan/result.h"

namespace normserve::vulkan {

absl::StatusOr<std::unique_ptr<ComputePipeline>> ComputePipeline::Create(Device& device, const Shader& shader,
                                                                         absl::Span<const uint32_t> specialization) {
  NORMSERVE_CHECK(shader.num_storage_buffers <= device.limits().max_storage_buffers);
  NORMSERVE_CHECK(shader.push_constant_bytes <= device.limits().max_push_constants_bytes);
  NORMSERVE_CHECK(shader.push_constant_bytes % 4 == 0);
  const VolkDeviceTable& vk = device.vk();
  std::unique_ptr<ComputePipeline> self(new ComputePipeline(device));
  self->num_storage_buffers_ = shader.num_storage_buffers;
  self->push_constant_bytes_ = shader.push_constant_bytes;

  std::vector<VkDescriptorSetLayoutBinding> bindings(shader.num_storage_buffers);
  for (uint32_t i = 0; i < shader.num_storage_buffers; ++i) {
    bindings[i] = {i, VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, 1, VK_SHADER_STAGE_COMPUTE_BIT, nullptr};
  }
  VkDescriptorSetLayoutCreateInfo set_layout = {VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO};
  if (device.push_descriptors()) set_layout.flags = VK_DESCRIPTOR_SET_LAYOUT_CREATE_PUSH_DESCRIPTOR_BIT_KHR;
  set_layout.bindingCount = shader.num_storage_buffers;
  set_layout.pBindings = bindings.data();
  VkResult result = vk.vkCreateDescriptorSetLayout(device.handle(), &set_layout, nullptr, &self->set_layout_);
  if (result != VK_SUCCESS) return ResultStatus(result, absl::StrCat("vkCreateDescriptorSetLayout for ", shader.id));

  const VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, shader.push_constant_bytes};
  VkPipelineLayoutCreateInfo layout = {VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO};
  layout.setLayoutCount = 1;
  layout.pSetLayouts = &self->set_layout_;
  layout.pushConstantRangeCount = shader.push_constant_bytes > 0 ? 1 : 0;
  layout.pPushConstantRanges = &push;
  result = vk.vkCreatePipelineLayout(device.handle(), &layout, nullptr, &self->layout_);
  if (result != VK_SUCCESS) return ResultStatus(result, absl::StrCat("vkCreatePipelineLayout for ", shader.id));

  VkShaderModuleCreateInfo module_create = {VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO};
  const std::vector<uint32_t> spirv = DeclareFloatControls(shader.spirv, device.float_controls());
  module_create.codeSize = spirv.size() * sizeof(uint32_t);
  module_create.pCode = spirv.data();
  VkShaderModule module = VK_NULL_HANDLE;
  result = vk.vkCreateShaderModule(device.handle(), &module_create, nullptr, &module);
  if (result != VK_SUCCESS) return ResultStatus(result, absl::StrCat("vkCreateShaderModule for ", shader.id));

  std::vector<VkSpecializationMapEntry> entries(specialization.size());
  for (uint32_t i = 0; i < entries.size(); ++i) {
    entries[i] = {i, static_cast<uint32_t>(i * sizeof(uint32_t)), sizeof(uint32_t)};
  }
  VkSpecializationInfo constants = {};
  constants.mapEntryCount = static_cast<uint32_t>(entries.size());
  constants.pMapEntries = entries.data();
  constants.dataSize = specialization.size() * sizeof(uint32_t);
  constants.pData = specialization.data();
  VkComputePipelineCreateInfo create = {VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO};
  create.stage = {VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO};
  create.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  create.stage.module = module;
  create.stage.pName = "main";
  create.stage.pSpecializationInfo = &constants;
  create.layout = self->layout_;
  result = vk.vkCreateComputePipelines(device.handle(), VK_NULL_HANDLE, 1, &create, nullptr, &self->pipeline_);
  vk.vkDestroyShaderModule(device.handle(), module, nullptr);
  if (result != VK_SUCCESS) return ResultStatus(result, absl::StrCat("vkCreateComputePipelines for ", shader.id));
  return self;
}

ComputePipeline::~ComputePipeline() {
  const VolkDeviceTable& vk = device_.vk();
  vk.vkDestroyPipeline(device_.handle(), pipeline_, nullptr);
  vk.vkDestroyPipelineLayout(device_.handle(), layout_, nullptr);
  vk.vkDestroyDescriptorSetLayout(device_.handle(), set_layout_, nullptr);
}

}  // namespace normserve::vulkan
