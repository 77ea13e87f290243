# The libraries everything stands on, all from Debian's packages.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(absl REQUIRED)
find_package(gRPC REQUIRED CONFIG)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)
find_package(PkgConfig REQUIRED)
if(NORMSERVE_CLIENT)
  pkg_check_modules(CAIRO REQUIRED IMPORTED_TARGET cairo)  # normctl's plots
endif()
if(NORMSERVE_SERVER)
  find_package(spdlog REQUIRED)
  find_program(GLSLC glslc REQUIRED)
  find_program(SPIRV_VAL spirv-val REQUIRED)
  find_path(VOLK_INCLUDE_DIR volk.h REQUIRED)
  find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
  find_package(SQLite3 REQUIRED)
  # By pkg-config: it says which of cpp-httplib's switches Debian's library was compiled with, and has Prometheus' core
  # without the HTTP server that comes with it.
  pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)
  pkg_check_modules(PROMETHEUS REQUIRED IMPORTED_TARGET prometheus-cpp-core)
endif()
find_path(CLI11_INCLUDE_DIR CLI/CLI.hpp REQUIRED)
find_path(NLOHMANN_JSON_INCLUDE_DIR nlohmann/json.hpp REQUIRED)
if(NORMSERVE_TESTS)
  find_package(GTest REQUIRED)
  # Debian's own interpreter: python3-torch and python3-grpcio are packages for it.
  set(Python3_EXECUTABLE /usr/bin/python3)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  if(NORMSERVE_SERVER)
    # Two independent drivers that need no GPU: packages mesa-vulkan-drivers and chromium-common.
    find_file(LAVAPIPE_ICD NAMES lvp_icd.x86_64.json lvp_icd.aarch64.json lvp_icd.json
              PATHS /usr/share/vulkan/icd.d NO_DEFAULT_PATH REQUIRED)
    find_file(SWIFTSHADER_ICD vk_swiftshader_icd.json
              PATHS /usr/lib/chromium /usr/share/chromium NO_DEFAULT_PATH REQUIRED)
    set(NORMSERVE_TEST_ICDS ${LAVAPIPE_ICD}:${SWIFTSHADER_ICD} CACHE STRING
        "Driver manifests that the Vulkan tests run on, separated by ':'")
    # Goes into the ENVIRONMENT of every test that opens a device.
    set(NORMSERVE_TEST_DRIVERS VK_ICD_FILENAMES=${NORMSERVE_TEST_ICDS} VK_DRIVER_FILES=${NORMSERVE_TEST_ICDS})
  endif()
endif()
if(NORMSERVE_BENCHMARKS)
  find_package(benchmark REQUIRED)
endif()
