#include "client/cli/sparkline.h"

#include <gtest/gtest.h>

#include <limits>

namespace normserve::cli {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(Sparkline, IsABlockAValueFromTheLeastToTheLargest) {
  EXPECT_EQ(Sparkline({0, 1, 2, 3, 4, 5, 6, 7}, 8), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(Sparkline({-2, 2}, 8), "▁█");
  EXPECT_EQ(Sparkline({}, 8), "");
}

TEST(Sparkline, EqualValuesAreInTheMiddle) { EXPECT_EQ(Sparkline({3, 3, 3}, 8), "▄▄▄"); }

TEST(Sparkline, MoreValuesThanItIsWideAreAveraged) {
  EXPECT_EQ(Sparkline({0, 2, 8, 10}, 2), "▁█");  // 1 and 9
  EXPECT_EQ(Sparkline(std::vector<double>(1001, 5), 10), "▄▄▄▄▄▄▄▄▄▄");
}

TEST(Sparkline, WhatIsNotFiniteIsMarkedAndLeavesTheRestAsItIs) {
  EXPECT_EQ(Sparkline({0, kInfinity, 1, std::numeric_limits<double>::quiet_NaN()}, 8), "▁!█!");
  EXPECT_EQ(Sparkline({-1.7e308, 1.7e308}, 8), "▁█");
}

TEST(PaddedSparkline, CountsCharactersAndNotBytes) {
  EXPECT_EQ(PaddedSparkline("▁█", 4), "▁█  ");
  EXPECT_EQ(PaddedSparkline("▁█", 1), "▁█");
}

}  // namespace
}  // namespace normserve::cli
