// Vulkan as this folder sees it: types and constants, and functions that volk finds in the loader at run time.
// Nothing links libvulkan, so a program starts, and can explain itself, on a machine without one.
#pragma once

#include <volk.h>
