# Each family of ops is a .cu with kernels alone and a .cpp that knows the ops.
set(PYCNN_CUDA_KERNELS batch_norm.cu conv2d.cu elementwise.cu move.cu optimizer.cu pool.cu softmax.cu)
set(PYCNN_CUDA_SOURCES ${PYCNN_CUDA_KERNELS} batch_norm.cpp conv2d.cpp elementwise.cpp module.cpp move.cpp optimizer.cpp pool.cpp
  softmax.cpp)
