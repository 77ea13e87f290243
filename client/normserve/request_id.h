// Names for changes. Internal: not installed.
#pragma once

#include <string>

namespace normserve::client {

// A random UUID (RFC 4122 version 4), such as "3f0c2a8e-9d1b-4c57-a3e4-0b6f1d2c9a75". Thread-safe.
std::string MakeRequestId();

}  // namespace normserve::client
