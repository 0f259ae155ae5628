# Cross-compiling for 64-bit Arm with Debian's compiler (apt-get install crossbuild-essential-arm64), running tests with
# qemu-user:
#   cmake -S . -B build-arm -G Ninja --toolchain cmake/toolchains/aarch64-linux-gnu.cmake -DPYCNN_BUILD_TESTS=ON
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(PYCNN_QEMU_AARCH64 NAMES qemu-aarch64 qemu-aarch64-static)
if(PYCNN_QEMU_AARCH64)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${PYCNN_QEMU_AARCH64} -L /usr/aarch64-linux-gnu)
endif()
