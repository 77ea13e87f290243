// What came out of the forum's puzzle, and how it is told.
#pragma once

#include <normserve/client.h>

#include <cstdint>
#include <map>
#include <string>

namespace normserve::examples {

// bn1 after so many updates on the batch.
struct AfterUpdates {
  client::RunningStatistics statistics;
  double eval_sum = 0;
};

struct ForumResult {
  uint64_t seed = 0;
  std::string device;
  client::Moments batch_moments;
  double train_sum = 0;           // of bn1's first output
  client::RunningStatistics bn1;  // after one TRAIN Forward each
  client::RunningStatistics bn2;
  double eval_sum = 0;                        // of bn2's output in EVAL
  std::map<int, AfterUpdates> after_updates;  // by number of updates
  client::Diagnosis diagnosis;                // of bn2 in EVAL

  // Bit for bit.
  bool StatisticsEqual() const;
};

// The explanation, for people: at most 76 columns wide, no newline at the end.
std::string ForumText(const ForumResult& result);

}  // namespace normserve::examples
