#include "client/cli/sparkline.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace normserve::cli {
namespace {

constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr size_t kNumBlocks = std::size(kBlocks);

// In `num_groups` of nearly equal size.
std::vector<double> Averaged(const std::vector<double>& values, size_t num_groups) {
  std::vector<double> averages;
  for (size_t group = 0; group < num_groups; ++group) {
    const size_t first = group * values.size() / num_groups, end = (group + 1) * values.size() / num_groups;
    double sum = 0;  // of what they exceed the first by: equal values have that as their average
    for (size_t i = first; i < end; ++i) sum += values[i] - values[first];
    averages.push_back(values[first] + sum / static_cast<double>(end - first));
  }
  return averages;
}

}  // namespace

std::string Sparkline(const std::vector<double>& values, size_t max_width) {
  const std::vector<double> shown = values.size() > max_width ? Averaged(values, max_width) : values;
  double least = std::numeric_limits<double>::infinity(), most = -least;
  for (const double value : shown) {
    if (!std::isfinite(value)) continue;
    least = std::min(least, value);
    most = std::max(most, value);
  }
  std::string line;
  for (const double value : shown) {
    if (!std::isfinite(value)) {
      line += "!";
    } else if (most == least) {
      line += kBlocks[3];
    } else {
      // Halves first: the range of values of either sign may overflow.
      const double share = (value / 2 - least / 2) / (most / 2 - least / 2);
      line += kBlocks[std::min(kNumBlocks - 1, static_cast<size_t>(share * kNumBlocks))];
    }
  }
  return line;
}

std::string PaddedSparkline(const std::string& text, size_t width) {
  // Bytes that begin a character.
  const auto shown = static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
  return text + std::string(width > shown ? width - shown : 0, ' ');
}

}  // namespace normserve::cli
