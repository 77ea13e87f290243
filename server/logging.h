// The server's log: lines on stderr.
#pragma once

#include <string>

namespace normserve {

// `format` is "text" or "json" (one object a line), `level` one of spdlog's names. The messages of gRPC and of
// Protocol Buffers come out too, at level debug.
void SetUpLogging(const std::string& format, const std::string& level);

}  // namespace normserve
