"""
How does learning stay on a GPU? Updates that the host only starts, and transitions that lie where they are used.

Run on one kind of GPU so far, see docs/benchmarks.md. Nothing outside of this wing needs it.
"""

from sb3_dqs.gpu.buffers import DeviceReplayBuffer
from sb3_dqs.gpu.cuda_graph import CudaGraphDQS

__all__ = ["CudaGraphDQS", "DeviceReplayBuffer"]
