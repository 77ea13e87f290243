// copy: y = x, four values at a time; what a device's memory gives a shader that computes nothing.
//
// Grid: x = slice. An invocation copies `steps` quads, a workgroup's width apart.
//   0  x    1  y out
#version 460

layout(local_size_x_id = 0) in;

layout(std430, binding = 0) readonly buffer In { vec4 quads_in[]; };
layout(std430, binding = 1) writeonly buffer Out { vec4 quads_out[]; };

layout(push_constant) uniform Push {
  uint quads;
  uint steps;
};

void main() {
  uint first = gl_WorkGroupID.x * gl_WorkGroupSize.x * steps + gl_LocalInvocationID.x;
  for (uint step = 0u; step < steps; ++step) {
    uint i = first + step * gl_WorkGroupSize.x;
    if (i < quads) quads_out[i] = quads_in[i];
  }
}
