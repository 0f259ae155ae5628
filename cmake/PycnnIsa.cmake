# Kernels that are compiled once per instruction set. On other processors than x86-64 only the generic build exists.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(PYCNN_CPU_ISAS "")
  set(PYCNN_FLAGS_baseline "")
else()
  set(PYCNN_FLAGS_baseline -march=x86-64-v2)
endif()
set(PYCNN_FLAGS_avx2 -march=x86-64-v3)
set(PYCNN_FLAGS_avx512 -march=x86-64-v4 -mprefer-vector-width=512)

# In any configuration, but for sanitizers, which take minutes to instrument unrolled loops.
set(PYCNN_KERNEL_OPTIONS -O3)
if(PYCNN_SANITIZE)
  set(PYCNN_KERNEL_OPTIONS "")
endif()
add_library(pycnn_kernel_settings INTERFACE)
if(PYCNN_SANITIZE MATCHES address AND PYCNN_SANITIZE MATCHES undefined)
  # A null pointer and what is outside of an object are seen by the address sanitizer, and kernels are half of all that is
  # compiled. Behind the sanitizers' own option, which would turn these on again.
  target_compile_options(pycnn_kernel_settings INTERFACE -fno-sanitize=null,object-size,pointer-overflow,vptr)
endif()

# pycnn_add_isa_source([GROUP group] file.isa.cpp ...): adds each file once per instruction set to the library; with
# PYCNN_UNITY_BUILD those of a group are compiled as one.
function(pycnn_add_isa_source)
  cmake_parse_arguments(PARSE_ARGV 0 isa "" "GROUP;ONLY" "")
  set(files ${isa_UNPARSED_ARGUMENTS})
  list(TRANSFORM files PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  foreach(isa IN ITEMS baseline LISTS PYCNN_CPU_ISAS)
    if(isa_ONLY AND NOT isa STREQUAL isa_ONLY)
      continue()
    endif()
    set(objects pycnn_cpu_${isa})
    if(NOT TARGET ${objects})
      add_library(${objects} OBJECT)
      target_compile_definitions(${objects} PRIVATE PYCNN_ISA=${isa})
      target_compile_options(${objects} PRIVATE ${PYCNN_FLAGS_${isa}} ${PYCNN_KERNEL_OPTIONS} -fno-math-errno -fno-exceptions)
      target_link_libraries(${objects} PRIVATE pycnn_build_settings pycnn_kernel_settings)
      set_target_properties(${objects} PROPERTIES POSITION_INDEPENDENT_CODE ON)
      # The compiler's header of intrinsics takes longer than most of the files.
      target_precompile_headers(${objects} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/simd.isa.h)
      target_sources(pycnn PRIVATE $<TARGET_OBJECTS:${objects}>)
    endif()
    target_sources(${objects} PRIVATE ${files})
    if(PYCNN_UNITY_BUILD AND isa_GROUP)
      set_target_properties(${objects} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
      set_source_files_properties(${files} TARGET_DIRECTORY ${objects} PROPERTIES UNITY_GROUP ${isa_GROUP})
    endif()
  endforeach()
endfunction()

# Units for bfloat16, of processors that have AVX-512 too.
set(PYCNN_FLAGS_avx512_bf16 ${PYCNN_FLAGS_avx512} -mavx512bf16)
set(PYCNN_FLAGS_amx ${PYCNN_FLAGS_avx512_bf16} -mamx-tile -mamx-bf16)

# pycnn_add_unit_source(unit file.isa.cpp...): adds the files, compiled for that unit, to the library, if it is built
# for AVX-512 at all.
function(pycnn_add_unit_source unit)
  if(NOT avx512 IN_LIST PYCNN_CPU_ISAS)
    return()
  endif()
  set(objects pycnn_cpu_${unit})
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  add_library(${objects} OBJECT ${ARGN})
  target_compile_options(${objects} PRIVATE ${PYCNN_FLAGS_${unit}} ${PYCNN_KERNEL_OPTIONS} -fno-math-errno -fno-exceptions)
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    # GCC 12 warns of the undefined operands inside its own intrinsics (its bug 105593).
    target_compile_options(${objects} PRIVATE -Wno-maybe-uninitialized -Wno-uninitialized)
  endif()
  target_link_libraries(${objects} PRIVATE pycnn_build_settings pycnn_kernel_settings)
  set_target_properties(${objects} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_sources(pycnn PRIVATE $<TARGET_OBJECTS:${objects}>)
endfunction()
