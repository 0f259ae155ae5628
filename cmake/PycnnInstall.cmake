# What is installed where. Component cpp: library, headers, package files. Component python: the extension modules.
# In a wheel everything lies inside the Python package, so that one install serves both languages.
if(SKBUILD)
  set(PYCNN_INSTALL_INCLUDEDIR pycnn/include)
  set(PYCNN_INSTALL_LIBDIR pycnn/lib)
  set(PYCNN_INSTALL_BINDIR pycnn/bin)
else()
  set(PYCNN_INSTALL_INCLUDEDIR ${CMAKE_INSTALL_INCLUDEDIR})
  set(PYCNN_INSTALL_LIBDIR ${CMAKE_INSTALL_LIBDIR})
  set(PYCNN_INSTALL_BINDIR ${CMAKE_INSTALL_BINDIR})
endif()
set(PYCNN_INSTALL_CMAKEDIR ${PYCNN_INSTALL_LIBDIR}/cmake/pycnn)

target_include_directories(pycnn PUBLIC $<INSTALL_INTERFACE:${PYCNN_INSTALL_INCLUDEDIR}>)
install(TARGETS pycnn EXPORT pycnnTargets COMPONENT cpp
  LIBRARY DESTINATION ${PYCNN_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${PYCNN_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${PYCNN_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/csrc/include/pycnn ${PROJECT_BINARY_DIR}/csrc/include/pycnn
  DESTINATION ${PYCNN_INSTALL_INCLUDEDIR} COMPONENT cpp FILES_MATCHING PATTERN "*.h")
install(EXPORT pycnnTargets NAMESPACE pycnn:: DESTINATION ${PYCNN_INSTALL_CMAKEDIR} COMPONENT cpp)

# Users of the static library link what it was built with; the shared one carries it.
get_target_property(pycnn_type pycnn TYPE)
set(PYCNN_CONFIG_NEEDS_OPENMP OFF)
set(PYCNN_CONFIG_NEEDS_THREADS OFF)
if(pycnn_type STREQUAL STATIC_LIBRARY)
  set(PYCNN_CONFIG_NEEDS_THREADS ON)
  set(PYCNN_CONFIG_NEEDS_OPENMP ${PYCNN_WITH_OPENMP})
endif()
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/pycnnConfig.cmake.in
  ${PROJECT_BINARY_DIR}/pycnnConfig.cmake INSTALL_DESTINATION ${PYCNN_INSTALL_CMAKEDIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/pycnnConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pycnnConfig.cmake ${PROJECT_BINARY_DIR}/pycnnConfigVersion.cmake
  DESTINATION ${PYCNN_INSTALL_CMAKEDIR} COMPONENT cpp)

if(PYCNN_BUILD_PYTHON)
  set_target_properties(_core PROPERTIES INSTALL_RPATH "$ORIGIN/lib")
  install(TARGETS _core LIBRARY DESTINATION pycnn COMPONENT python)
  install(TARGETS _image LIBRARY DESTINATION pycnn/data COMPONENT python)
endif()

# Beside the library, where the loader looks.
if(PYCNN_WITH_CUDA)
  install(TARGETS pycnn_cuda LIBRARY DESTINATION ${PYCNN_INSTALL_LIBDIR} COMPONENT cpp)
  if(PYCNN_BUILD_PYTHON)
    add_dependencies(_core pycnn_cuda)
  endif()
endif()
