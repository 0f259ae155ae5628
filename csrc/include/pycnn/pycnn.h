#pragma once
/// \file
/// All of pycnn's public C++ interface.
#include "pycnn/checkpoint.h"
#include "pycnn/composites.h"
#include "pycnn/error.h"
#include "pycnn/graph.h"
#include "pycnn/network.h"
#include "pycnn/ops.h"
#include "pycnn/program.h"
#include "pycnn/tensor.h"
#include "pycnn/trainer.h"
#include "pycnn/version.h"
