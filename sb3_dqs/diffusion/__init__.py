"""
The mathematics of Diffusion Q-Sampling, on tensors alone: no Stable-Baselines3, no gymnasium, no environment.

``noise`` (levels) -> ``proposals`` and ``estimators`` (what the network regresses on) -> ``networks`` -> ``samplers``
(noise to samples) -> ``entropy``. ``box`` and ``paper`` put these parts together into the two settings of the algorithm;
``refiner`` (what a sample stands for), ``choice`` (one of several) and ``corrector`` (a move by the law) then make actions of
samples. ``reflection`` is the geometry of the walls, ``special`` what stands for functions of torch outside of torch.
"""
