// InspectMachine of a normctl that was built without the kernels.
#include "client/cli/doctor.h"

namespace normserve::cli {

MachineReport InspectMachine() {
  return {.text =
              "This machine\n  not looked at: this normctl was built without the server (NORMSERVE_SERVER=OFF);\n"
              "  run doctor where the server runs\n",
          .json = {{"inspected", false}}};
}

}  // namespace normserve::cli
