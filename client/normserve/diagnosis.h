// Why a layer puts out something else in evaluation than in training.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace normserve::client {

// What one cause has of the gap.
struct CauseShare {
  std::string cause;  // normserve.v1.Cause without its prefix, such as "INITIALISATION"
  double share = 0;   // of predicted_gap_rms, in its unit; may be negative where one cause hides another
};

// One layer, diagnosed. normserve.v1.Diagnosis has the words in full.
struct Diagnosis {
  std::string name;
  std::string uid;
  int64_t generation = 0;
  std::string verdict;                         // normserve.v1.Verdict without its prefix, such as "TRAIN_EVAL_GAP"
  std::optional<double> gap_rms;               // of evaluation's output less training's; nothing: there is none to tell
  std::optional<double> predicted_gap_rms;     // for a later batch of the same kind
  std::optional<double> relative_gap;          // gap_rms as a share of the output's own size
  std::optional<double> sampling_noise;        // the gap that a sound layer shows on such batches
  std::optional<double> sampling_noise_limit;  // which it exceeds once in 30,000 times
  std::vector<double> channel_gap_rms;         // [C]; only if it was asked for
  std::vector<CauseShare> causes;              // in the order of their swaps; shares add up to predicted_gap_rms
  std::map<std::string, int64_t> flagged_channels;  // how many channels have each flag, such as "DEAD"
  std::string explanation;                          // what is, in plain words
  std::string advice;                               // what to do; empty: nothing
  int64_t batch_count = 0;                          // values a channel of the batch it was compared with; 0: none
};

}  // namespace normserve::client
