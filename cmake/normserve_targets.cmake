# How a library, a program, a test, a shader and a .proto are declared. Every source is named; nothing is globbed.

add_library(normserve_options INTERFACE)
target_compile_options(normserve_options INTERFACE
  -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
  # The same bits on every machine: no fused multiply-add that the source does not say.
  -ffp-contract=off
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Werror=thread-safety>)
target_include_directories(normserve_options INTERFACE ${PROJECT_SOURCE_DIR})

# normserve_library(NAME engine [HDRS …] [SRCS …] [DEPS …]) makes the target normserve_engine. DEPS are other such
# names, or targets of other packages (those with '::').
function(normserve_library)
  cmake_parse_arguments(ARG "" "NAME" "HDRS;SRCS;DEPS" ${ARGN})
  set(target normserve_${ARG_NAME})
  _normserve_deps(deps ${ARG_DEPS})
  if(ARG_SRCS)
    add_library(${target} STATIC ${ARG_SRCS} ${ARG_HDRS})
    target_link_libraries(${target} PUBLIC normserve_options ${deps})
  else()
    add_library(${target} INTERFACE ${ARG_HDRS})
    target_link_libraries(${target} INTERFACE normserve_options ${deps})
  endif()
  add_library(normserve::${ARG_NAME} ALIAS ${target})
endfunction()

# normserve_executable(NAME normctl SRCS … DEPS …) makes the program normctl.
function(normserve_executable)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  _normserve_deps(deps ${ARG_DEPS})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE normserve_options ${deps})
endfunction()

# normserve_test(NAME moments_test SRCS … DEPS … [LABELS …] [TIMEOUT seconds] [ENVIRONMENT …]) makes a GoogleTest
# program whose cases CTest runs one by one. Does nothing when tests are not built.
function(normserve_test)
  if(NOT NORMSERVE_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "WHOLE" "NAME;TIMEOUT" "SRCS;DEPS;LABELS;ENVIRONMENT" ${ARGN})
  _normserve_deps(deps ${ARG_DEPS})
  add_executable(${ARG_NAME} ${ARG_SRCS} ${PROJECT_SOURCE_DIR}/tests/deadlock_detection.cc)
  target_link_libraries(${ARG_NAME} PRIVATE normserve_options ${deps} absl::synchronization GTest::gmock_main)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  # One CTest entry a program: starting a Vulkan driver for each case would cost more than the cases.
  add_test(NAME ${ARG_NAME} COMMAND ${ARG_NAME} --gtest_color=no)
  # A case that skips itself proves nothing and counts as failed.
  set_tests_properties(${ARG_NAME} PROPERTIES
    LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${ARG_ENVIRONMENT}"
    FAIL_REGULAR_EXPRESSION "\\[  SKIPPED \\];YOU HAVE [0-9]+ DISABLED TEST")
endfunction()

# normserve_python_test(NAME contract_test FILE contract_test.py [LABELS …] [TIMEOUT seconds] [ENVIRONMENT …]
# [ARGUMENTS …]) makes CTest run a Python file (unittest) of the current folder with Debian's interpreter.
function(normserve_python_test)
  if(NOT NORMSERVE_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "NAME;FILE;TIMEOUT" "LABELS;ENVIRONMENT;ARGUMENTS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_test(NAME ${ARG_NAME} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_FILE} ${ARG_ARGUMENTS})
  set_tests_properties(${ARG_NAME} PROPERTIES
    LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT} ENVIRONMENT "${ARG_ENVIRONMENT}"
    FAIL_REGULAR_EXPRESSION "skipped=[0-9]")
endfunction()

# _normserve_shader(SOURCE STEM includes... ) compiles one GLSL file with more glslc flags FLAGS into STEM.spv and STEM.spv.h;
# appends the header to the caller's `headers`.
function(_normserve_shader)
  cmake_parse_arguments(ARG "" "SOURCE;STEM" "FLAGS;INCLUDES" ${ARGN})
  set(binary ${CMAKE_CURRENT_BINARY_DIR}/shaders/${ARG_STEM}.spv)
  set(header ${PROJECT_BINARY_DIR}/generated/kernels/shaders/${ARG_STEM}.spv.h)
  add_custom_command(
    OUTPUT ${header}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/shaders
            ${PROJECT_BINARY_DIR}/generated/kernels/shaders
    COMMAND ${GLSLC} --target-env=vulkan1.2 -O -Werror ${ARG_FLAGS} -I ${CMAKE_CURRENT_SOURCE_DIR}/shaders
            -o ${binary} ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SOURCE}
    COMMAND ${SPIRV_VAL} --target-env vulkan1.2 ${binary}
    COMMAND ${CMAKE_COMMAND} -DINPUT=${binary} -DOUTPUT=${header} -DSTEM=${ARG_STEM}
            -P ${PROJECT_SOURCE_DIR}/cmake/embed_spirv.cmake
    DEPENDS ${ARG_SOURCE} ${ARG_INCLUDES} ${PROJECT_SOURCE_DIR}/cmake/embed_spirv.cmake
    COMMENT "Shader ${ARG_STEM}" VERBATIM)
  set(headers ${headers} ${header} PARENT_SCOPE)
endfunction()

# normserve_shaders(NAME kernels_shaders SHADERS shaders/merge.comp … VARIED shaders/moments.comp …) compiles GLSL to
# SPIR-V 1.5, checks it with spirv-val, and embeds it: library normserve_NAME with "kernels/shaders/merge.spv.h" declaring
# `inline constexpr uint32_t kMergeSpirv[]`. A varied shader is compiled for each ACCESS (0 to 3) and ELEMENT (0 to 2), and
# "kernels/shaders/moments.spv.h" declares `kMomentsSpirv[4][3]`, spans: a driver would need seconds to find out by itself what
# a variant leaves out.
function(normserve_shaders)
  cmake_parse_arguments(ARG "" "NAME" "SHADERS;VARIED;INCLUDES" ${ARGN})
  set(headers)
  foreach(source IN LISTS ARG_SHADERS)
    get_filename_component(stem ${source} NAME_WE)
    _normserve_shader(SOURCE ${source} STEM ${stem} INCLUDES ${ARG_INCLUDES})
  endforeach()
  foreach(source IN LISTS ARG_VARIED)
    get_filename_component(stem ${source} NAME_WE)
    string(REPLACE "_" ";" words ${stem})
    set(name)
    foreach(word IN LISTS words)
      string(SUBSTRING ${word} 0 1 first)
      string(SUBSTRING ${word} 1 -1 rest)
      string(TOUPPER ${first} first)
      string(APPEND name ${first}${rest})
    endforeach()
    set(includes)
    set(table)
    foreach(access RANGE 3)
      set(row)
      foreach(element RANGE 2)
        _normserve_shader(SOURCE ${source} STEM ${stem}_${access}_${element} INCLUDES ${ARG_INCLUDES}
                          FLAGS -DACCESS=${access}u -DELEMENT=${element}u)
        string(APPEND includes "#include \"kernels/shaders/${stem}_${access}_${element}.spv.h\"\n")
        list(APPEND row "k${name}${access}${element}Spirv")
      endforeach()
      list(JOIN row ", " row)
      string(APPEND table "    {${row}},\n")
    endforeach()
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/kernels/shaders/${stem}.spv.h @ONLY CONTENT
"#pragma once\n
#include \"absl/types/span.h\"\n${includes}
// By access and element.
inline constexpr absl::Span<const uint32_t> k${name}Spirv[4][3] = {\n${table}};\n")
  endforeach()
  add_custom_target(normserve_${ARG_NAME}_generated DEPENDS ${headers})
  add_library(normserve_${ARG_NAME} INTERFACE)
  add_dependencies(normserve_${ARG_NAME} normserve_${ARG_NAME}_generated)
  target_include_directories(normserve_${ARG_NAME} INTERFACE ${PROJECT_BINARY_DIR}/generated)
endfunction()

# normserve_embedded_files(NAME admin_page FILES page/index.html …) makes library normserve_NAME with a header for each file:
# "server/observe/page/index.html.h" declares `inline constexpr char kIndexHtml[]`, its bytes, without an end.
function(normserve_embedded_files)
  cmake_parse_arguments(ARG "" "NAME" "FILES" ${ARGN})
  set(headers)
  foreach(file IN LISTS ARG_FILES)
    file(RELATIVE_PATH path ${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/${file})
    set(header ${PROJECT_BINARY_DIR}/generated/${path}.h)
    get_filename_component(folder ${header} DIRECTORY)
    add_custom_command(
      OUTPUT ${header}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
      COMMAND ${CMAKE_COMMAND} -DINPUT=${CMAKE_CURRENT_SOURCE_DIR}/${file} -DOUTPUT=${header}
              -P ${PROJECT_SOURCE_DIR}/cmake/embed_file.cmake
      DEPENDS ${file} ${PROJECT_SOURCE_DIR}/cmake/embed_file.cmake
      COMMENT "Embedding ${path}" VERBATIM)
    list(APPEND headers ${header})
  endforeach()
  add_custom_target(normserve_${ARG_NAME}_generated DEPENDS ${headers})
  add_library(normserve_${ARG_NAME} INTERFACE)
  add_dependencies(normserve_${ARG_NAME} normserve_${ARG_NAME}_generated)
  target_include_directories(normserve_${ARG_NAME} INTERFACE ${PROJECT_BINARY_DIR}/generated)
endfunction()

# normserve_proto_library(NAME proto PROTOS normserve/v1/tensor.proto …) makes messages and gRPC stubs from files
# below the current folder: library normserve_NAME, included as "normserve/v1/tensor.pb.h".
function(normserve_proto_library)
  cmake_parse_arguments(ARG "" "NAME" "PROTOS" ${ARGN})
  set(out ${PROJECT_BINARY_DIR}/proto)
  set(sources)
  foreach(proto IN LISTS ARG_PROTOS)
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    set(generated ${out}/${stem}.pb.cc ${out}/${stem}.pb.h ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
    add_custom_command(
      OUTPUT ${generated}
      COMMAND ${CMAKE_COMMAND} -E make_directory ${out}
      COMMAND ${Protobuf_PROTOC_EXECUTABLE} -I ${CMAKE_CURRENT_SOURCE_DIR} --cpp_out=${out}
              --grpc_out=generate_mock_code=true:${out} --plugin=protoc-gen-grpc=${GRPC_CPP_PLUGIN}
              ${CMAKE_CURRENT_SOURCE_DIR}/${proto}
      DEPENDS ${ARG_PROTOS}
      COMMENT "Protocol ${proto}" VERBATIM)
    list(APPEND sources ${generated})
  endforeach()
  add_library(normserve_${ARG_NAME} STATIC ${sources})
  # The protobuf compiler's code takes longest to compile of all, and none of it is on the data path.
  target_compile_options(normserve_${ARG_NAME} PRIVATE -O1 -g0)
  # Installed, its headers lie beside the client's.
  target_include_directories(normserve_${ARG_NAME} SYSTEM PUBLIC
    $<BUILD_INTERFACE:${out}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(normserve_${ARG_NAME} PUBLIC gRPC::grpc++ protobuf::libprotobuf)
  # For those that make other languages' messages.
  set_target_properties(normserve_${ARG_NAME} PROPERTIES NORMSERVE_PROTOS "${ARG_PROTOS}")
endfunction()

function(_normserve_deps out)
  set(result)
  foreach(dep IN LISTS ARGN)
    if(dep MATCHES "::")
      list(APPEND result ${dep})
    else()
      list(APPEND result normserve_${dep})
    endif()
  endforeach()
  set(${out} ${result} PARENT_SCOPE)
endfunction()
