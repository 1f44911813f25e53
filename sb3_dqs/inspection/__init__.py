"""
What has a policy learned? This wing looks at a model from outside and leaves it as it is: nothing that learns imports it.

``metrics`` (how far are samples from a law?) -> ``evaluation`` (roll-outs, and distances to the critic's law) -> ``plotting``
(pictures, with matplotlib) -> ``callbacks`` (either of them while a model learns).
"""

from sb3_dqs.inspection.callbacks import FigureCallback, MultimodalityCallback

__all__ = ["FigureCallback", "MultimodalityCallback"]
