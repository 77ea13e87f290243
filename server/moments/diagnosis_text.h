// A diagnosis in plain words.
#pragma once

#include "server/moments/diagnosis.h"

namespace normserve {

// Writes `diagnosis.explanation` and `advice` from its other fields. `num_earlier` is how many earlier batches were
// used.
void Explain(const DiagnosedLayer& layer, const Moments& batch, int64_t num_earlier, LayerDiagnosis& diagnosis);

}  // namespace normserve
