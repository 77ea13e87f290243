// The one place that compiles volk. (volk hides its function pointers, which are called like the loader's functions, so
// they cannot stand in the way of a library of the same process that links the loader.)
#define VOLK_IMPLEMENTATION
#include "kernels/vulkan/vulkan_api.h"
