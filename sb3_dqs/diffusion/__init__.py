"""
The mathematics of Diffusion Q-Sampling, on tensors alone: no Stable-Baselines3, no gymnasium, no environment.

``noise`` (levels) -> ``proposals`` and ``estimators`` (what the network regresses on) -> ``networks`` -> ``samplers``
(noise to samples) -> ``entropy``. ``box`` and ``paper`` put these parts together into the two settings of the algorithm;
``refiner`` and ``corrector`` then make actions of samples.
"""
