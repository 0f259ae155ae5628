// What a test without the core needs of it.
#include "pycnn/ops.h"

pycnn::Op::~Op() = default;
