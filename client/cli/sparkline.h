// Numbers as a line of blocks.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace normserve::cli {

// "▁▃█": a block a value, from the least to the largest; more values than `max_width` are averaged in so many groups.
// One that is not finite is "!", all equal "▄". Ends where the values end.
std::string Sparkline(const std::vector<double>& values, size_t max_width);

// `text` followed by blanks up to `width` characters on the screen, as every block is one although it has three bytes.
std::string PaddedSparkline(const std::string& text, size_t width);

}  // namespace normserve::cli
