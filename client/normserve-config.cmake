# find_package(normserve): the target normserve::client, whose headers are included as <normserve/client.h>.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
find_dependency(Protobuf)
find_dependency(absl CONFIG)
find_dependency(gRPC CONFIG)
include(${CMAKE_CURRENT_LIST_DIR}/normserve_targets.cmake)
