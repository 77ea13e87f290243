#version 450
// y[i] = a * x[i] + b for the first `count` values.
// Grid: x; one value an invocation. 0: x in   1: y out. Constant 0: workgroup size; constant 1: added to b.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint extra = 0;
layout(std430, binding = 0) readonly buffer X { float x[]; };
layout(std430, binding = 1) writeonly buffer Y { float y[]; };
layout(push_constant) uniform Push {
  float a;
  float b;
  uint count;
};

void main() {
  uint i = gl_GlobalInvocationID.x;
  if (i < count) y[i] = a * x[i] + b + float(extra);
}
