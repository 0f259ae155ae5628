# Run in the examples' project (CMAKE_PROJECT_pycnn_examples_INCLUDE): pycnn's headers are compiled once for all of them,
# since that is what most of their time would go to.
function(precompile_pycnn)
  get_property(targets DIRECTORY PROPERTY BUILDSYSTEM_TARGETS)
  list(POP_FRONT targets first)
  target_precompile_headers(${first} PRIVATE <pycnn/pycnn.h>)
  foreach(target IN LISTS targets)
    target_precompile_headers(${target} REUSE_FROM ${first})
  endforeach()
endfunction()
cmake_language(DEFER CALL precompile_pycnn)
