#include "kernels/vulkan/instance.h"

#include <cstring>
#include <iterator>
#include <string>
#include <utility>

#include "absl/base/call_once.h"
#include "absl/strings/str_cat.h"
#include "kernels/vulkan/result.h"

namespace normserve::vulkan {
namespace {

constexpr char kValidationLayer[] = "VK_LAYER_KHRONOS_validation";
constexpr size_t kMaxMessages = 1000;

// Finds the loader, once a process: its functions are the same for every instance.
absl::Status LoadLoader() {
  static absl::once_flag once;
  static VkResult result = VK_SUCCESS;
  absl::call_once(once, [] { result = volkInitialize(); });
  if (result == VK_SUCCESS) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "no Vulkan loader (libvulkan.so.1) on this machine: install it (Debian, Ubuntu: apt-get install libvulkan1) and "
      "a "
      "driver (mesa-vulkan-drivers, or your GPU vendor's)");
}

// Device functions do not come from here but from each device's own table.
void LoadInstanceFunctions(VkInstance instance) {
  static absl::once_flag once;
  absl::call_once(once, [instance] { volkLoadInstanceOnly(instance); });
}

std::string VersionText(uint32_t version) {
  return absl::StrCat(VK_API_VERSION_MAJOR(version), ".", VK_API_VERSION_MINOR(version), ".",
                      VK_API_VERSION_PATCH(version));
}

#ifdef VK_EXT_layer_settings
bool LayerHasExtension(const char* layer, const char* extension) {
  uint32_t count = 0;
  if (vkEnumerateInstanceExtensionProperties(layer, &count, nullptr) != VK_SUCCESS) return false;
  std::vector<VkExtensionProperties> properties(count);
  if (vkEnumerateInstanceExtensionProperties(layer, &count, properties.data()) < 0) return false;
  for (const VkExtensionProperties& property : properties) {
    if (std::strcmp(property.extensionName, extension) == 0) return true;
  }
  return false;
}
#endif

absl::Status CheckValidationLayer() {
  uint32_t count = 0;
  VkResult result = vkEnumerateInstanceLayerProperties(&count, nullptr);
  std::vector<VkLayerProperties> layers(count);
  if (result == VK_SUCCESS) result = vkEnumerateInstanceLayerProperties(&count, layers.data());
  for (const VkLayerProperties& layer : layers) {
    if (std::strcmp(layer.layerName, kValidationLayer) == 0) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("validation was asked for, but the layer ", kValidationLayer,
                   " is not installed: apt-get install vulkan-validationlayers, or leave validation off"));
}

absl::Status CreateError(VkResult result) {
  if (result == VK_ERROR_INCOMPATIBLE_DRIVER) {
    return absl::FailedPreconditionError(
        "the Vulkan loader found no driver that works: install one (Debian, Ubuntu: apt-get install "
        "mesa-vulkan-drivers, which also computes without a GPU; NVIDIA: the driver's own package). `normctl doctor` "
        "shows where the loader looks");
  }
  return ResultStatus(result, "vkCreateInstance");
}

}  // namespace

absl::StatusOr<std::string> LoaderVersion() {
  absl::Status status = LoadLoader();
  if (!status.ok()) return status;
  return VersionText(volkGetInstanceVersion());
}

absl::StatusOr<std::unique_ptr<Instance>> Instance::Create(const InstanceOptions& options) {
  absl::Status status = LoadLoader();
  if (!status.ok()) return status;
  const uint32_t version = volkGetInstanceVersion();
  if (version < VK_API_VERSION_1_2) {
    return absl::FailedPreconditionError(absl::StrCat("the Vulkan loader is version ", VersionText(version),
                                                      ", needs at least 1.2: install a newer libvulkan1"));
  }
  if (options.validation) {
    status = CheckValidationLayer();
    if (!status.ok()) return status;
  }

  std::unique_ptr<Instance> self(new Instance());
  self->on_message_ = options.on_message;

  VkApplicationInfo application = {VK_STRUCTURE_TYPE_APPLICATION_INFO};
  application.pApplicationName = "normserve";
  application.apiVersion = VK_API_VERSION_1_2;
  VkInstanceCreateInfo create = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO};
  create.pApplicationInfo = &application;

  VkDebugUtilsMessengerCreateInfoEXT messenger = {VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT};
  messenger.messageSeverity =
      VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
  messenger.messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
  messenger.pfnUserCallback = &Instance::OnMessage;
  messenger.pUserData = self.get();

  const VkValidationFeatureEnableEXT enable[] = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT};
  VkValidationFeaturesEXT features = {VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT};
  features.enabledValidationFeatureCount = 1;
  features.pEnabledValidationFeatures = enable;

  const char* const layers[] = {kValidationLayer};
  std::vector<const char*> extensions;
  if (options.validation) {
    extensions = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME, VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME};
    create.enabledLayerCount = 1;
    create.ppEnabledLayerNames = layers;
    // Chained, the messenger also hears about this call and the instance's end.
    create.pNext = &features;
    features.pNext = &messenger;
  }
#ifdef VK_EXT_layer_settings
  // Newer layers check across submits, and do not look at what shaders read and write, unless told otherwise.
  const VkBool32 on = VK_TRUE;
  const VkBool32 off = VK_FALSE;
  const VkLayerSettingEXT values[] = {
      {kValidationLayer, "syncval_submit_time_validation", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &off},
      {kValidationLayer, "syncval_shader_accesses_heuristic", VK_LAYER_SETTING_TYPE_BOOL32_EXT, 1, &on}};
  VkLayerSettingsCreateInfoEXT settings = {VK_STRUCTURE_TYPE_LAYER_SETTINGS_CREATE_INFO_EXT};
  settings.settingCount = static_cast<uint32_t>(std::size(values));
  settings.pSettings = values;
  if (options.validation && LayerHasExtension(kValidationLayer, VK_EXT_LAYER_SETTINGS_EXTENSION_NAME)) {
    extensions.push_back(VK_EXT_LAYER_SETTINGS_EXTENSION_NAME);
    settings.pNext = create.pNext;
    create.pNext = &settings;
  }
#endif
  create.enabledExtensionCount = static_cast<uint32_t>(extensions.size());
  create.ppEnabledExtensionNames = extensions.data();

  VkResult result = vkCreateInstance(&create, nullptr, &self->instance_);
  if (result != VK_SUCCESS) {
    self->instance_ = VK_NULL_HANDLE;
    return CreateError(result);
  }
  LoadInstanceFunctions(self->instance_);
  if (options.validation) {
    auto create_messenger = reinterpret_cast<PFN_vkCreateDebugUtilsMessengerEXT>(
        vkGetInstanceProcAddr(self->instance_, "vkCreateDebugUtilsMessengerEXT"));
    result = create_messenger(self->instance_, &messenger, nullptr, &self->messenger_);
    if (result != VK_SUCCESS) return ResultStatus(result, "vkCreateDebugUtilsMessengerEXT");
  }
  return self;
}

Instance::~Instance() {
  if (messenger_ != VK_NULL_HANDLE) {
    auto destroy_messenger = reinterpret_cast<PFN_vkDestroyDebugUtilsMessengerEXT>(
        vkGetInstanceProcAddr(instance_, "vkDestroyDebugUtilsMessengerEXT"));
    destroy_messenger(instance_, messenger_, nullptr);
  }
  if (instance_ != VK_NULL_HANDLE) vkDestroyInstance(instance_, nullptr);
}

std::vector<std::string> Instance::validation_messages() const {
  absl::MutexLock lock(&mu_);
  return messages_;
}

VkBool32 Instance::OnMessage(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT type,
                             const VkDebugUtilsMessengerCallbackDataEXT* data, void* user_data) {
  Instance* self = static_cast<Instance*>(user_data);
  ValidationMessage message;
  message.is_error = (severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT) != 0;
  message.id = data->pMessageIdName == nullptr ? "" : data->pMessageIdName;
  message.text = data->pMessage == nullptr ? "" : data->pMessage;
  {
    absl::MutexLock lock(&self->mu_);
    if (self->messages_.size() < kMaxMessages) {
      self->messages_.push_back(absl::StrCat(message.id, ": ", message.text));
    }
  }
  if (self->on_message_) self->on_message_(message);
  return VK_FALSE;  // let the call go on
}

}  // namespace normserve::vulkan
