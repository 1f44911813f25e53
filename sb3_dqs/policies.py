"""How do observations become actions and values? Features -> diffusion actor -> action in [-1, 1], and the twin critics."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy, ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    get_actor_critic_arch,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.diffusion.estimators import QFunction
from sb3_dqs.diffusion.networks import SmallestOutput
from sb3_dqs.diffusion.paper import PaperDiffusion

DIFFUSIONS: dict[str, type[BoxDiffusion] | type[PaperDiffusion]] = {"box": BoxDiffusion, "paper": PaperDiffusion}

START_NOISE_SEED = 0

# Optimizers that can treat all parameters in one pass over them, and the arguments that this cannot be combined with.
FUSED_OPTIMIZERS = (th.optim.Adam, th.optim.AdamW)
FUSED_OPTIMIZER_CONFLICTS = {"foreach", "differentiable", "fused"}


def min_q_fn(critic: ContinuousCritic, observations: PyTorchObs) -> QFunction:
    """
    The critic as a function of the action alone: the one place where SB3's networks meet the diffusion's mathematics.

    :param critic: ensemble of Q networks
    :param observations: of a batch
    :return: maps actions (n, batch, action_dim) in [-1, 1] to the smallest Q of the ensemble, (n, batch); differentiable
        in the actions
    """
    with th.no_grad():
        features = critic.extract_features(observations, critic.features_extractor)
    return SmallestOutput(critic.q_networks, features)


def fixed_start_noise(n_candidates: int, action_dim: int) -> th.Tensor:
    """
    Start noise of deterministic prediction, the same in every process and for every model.

    :param n_candidates: number of start noises
    :param action_dim: size of the action
    :return: (n_candidates, action_dim): zero, the middle of the start law, then standard normal draws; the first rows of more
        candidates are those of fewer
    """
    generator = th.Generator().manual_seed(START_NOISE_SEED)
    # drawn one by one: how many are drawn at once changes what randn() draws
    draws = [th.randn(action_dim, generator=generator) for _ in range(n_candidates - 1)]
    return th.stack([th.zeros(action_dim), *draws])


class DiffusionActor(BasePolicy):
    """
    Actor (policy) network of DQS: a diffusion model over actions, conditioned on the observation.

    :param observation_space: Observation space
    :param action_space: Action space
    :param net_arch: Sizes of the hidden layers
    :param features_extractor: Network to extract features (a CNN when using images, a nn.Flatten() layer otherwise)
    :param features_dim: Number of features
    :param activation_fn: Activation function
    :param normalize_images: Whether to normalize images or not, dividing by 255.0 (True by default)
    :param diffusion: ``"box"`` or ``"paper"``
    :param diffusion_kwargs: Settings of :class:`~sb3_dqs.diffusion.box.BoxDiffusion` or
        :class:`~sb3_dqs.diffusion.paper.PaperDiffusion`
    :param n_action_candidates: Number of fixed start noises; the first one gives the actor's deterministic action
    """

    action_space: spaces.Box
    features_extractor: BaseFeaturesExtractor
    start_noise: th.Tensor
    # Set within starting_from(); else each sample draws its own
    given_start_noise: th.Tensor | None = None

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        diffusion: str = "box",
        diffusion_kwargs: dict[str, Any] | None = None,
        n_action_candidates: int = 1,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor=features_extractor,
            normalize_images=normalize_images,
            squash_output=True,
        )
        self.net_arch = net_arch
        self.features_dim = features_dim
        self.activation_fn = activation_fn
        self.diffusion_name = diffusion
        self.diffusion_kwargs = diffusion_kwargs or {}
        self.n_action_candidates = n_action_candidates
        self.action_dim = get_action_dim(action_space)
        self.register_buffer("start_noise", fixed_start_noise(n_action_candidates, self.action_dim), persistent=False)
        self.diffusion = DIFFUSIONS[diffusion](features_dim, self.action_dim, net_arch, activation_fn, **self.diffusion_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            dict(
                net_arch=self.net_arch,
                features_extractor=self.features_extractor,
                features_dim=self.features_dim,
                activation_fn=self.activation_fn,
                diffusion=self.diffusion_name,
                diffusion_kwargs=self.diffusion_kwargs,
                n_action_candidates=self.n_action_candidates,
            )
        )
        return data

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        Sample one action per observation.

        :param obs: batch of observations
        :param deterministic: start from the fixed noise instead of random noise
        :return: (batch, action_dim), in [-1, 1]
        """
        if deterministic:
            return self.candidate_actions(obs, self.start_noise[:1])[0]
        features = self.extract_features(obs, self.features_extractor)
        start_noise = self.given_start_noise
        if start_noise is None:
            start_noise = features.new_empty(features.shape[0], self.action_dim).normal_()
        return self.diffusion.sample_actions(features, start_noise)

    @contextmanager
    def starting_from(self, start_noise: th.Tensor) -> Iterator[None]:
        """
        Meanwhile samples start from this noise, also those of ``predict()``, whatever wrappers it goes through.

        :param start_noise: (batch, action_dim), standard normal
        """
        self.given_start_noise = start_noise
        try:
            yield
        finally:
            self.given_start_noise = None

    def candidate_actions(self, obs: PyTorchObs, start_noise: th.Tensor) -> th.Tensor:
        """
        Actions from the same start noises for every observation: functions of observation, noise and weights alone.

        :param obs: batch of observations
        :param start_noise: (n_candidates, action_dim), standard normal; ``self.start_noise`` for the fixed ones
        :return: (n_candidates, batch, action_dim), in [-1, 1]
        """
        features = self.extract_features(obs, self.features_extractor)
        # .shape, not len(): exported programs keep the batch size open
        n_candidates, batch_size = start_noise.shape[0], features.shape[0]
        start_noise = start_noise[:, None].expand(-1, batch_size, -1).reshape(-1, self.action_dim)
        actions = self.diffusion.sample_actions(features.repeat(n_candidates, 1), start_noise, deterministic=True)
        return actions.view(n_candidates, batch_size, self.action_dim)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self(observation, deterministic)


class DiffusionPolicy(BasePolicy):
    """
    Policy class (with both actor and critic) for DQS.

    :param observation_space: Observation space
    :param action_space: Action space
    :param lr_schedule: Learning rate schedule (could be constant)
    :param net_arch: The specification of the policy and value networks: a list for both, or ``dict(pi=[...], qf=[...])``;
        ``[256, 256]`` by default
    :param activation_fn: Activation function
    :param features_extractor_class: Features extractor to use.
    :param features_extractor_kwargs: Keyword arguments to pass to the features extractor.
    :param normalize_images: Whether to normalize images or not, dividing by 255.0 (True by default)
    :param optimizer_class: The optimizer to use, ``th.optim.Adam`` by default
    :param optimizer_kwargs: Additional keyword arguments, excluding the learning rate, to pass to the optimizer
    :param n_critics: Number of critic networks to create.
    :param share_features_extractor: Whether to share or not the features extractor between the actor and the critic
        (this saves computation time); it is then trained by the actor's loss alone
    :param diffusion: ``"box"`` or ``"paper"``; set by :class:`~sb3_dqs.dqs.DQS`
    :param diffusion_kwargs: Settings of the diffusion; set by :class:`~sb3_dqs.dqs.DQS`
    :param n_action_candidates: Deterministic prediction returns the best of this many actions by the smallest Q of the
        ensemble; set by :class:`~sb3_dqs.dqs.DQS`
    """

    actor: DiffusionActor
    critic: ContinuousCritic
    critic_target: ContinuousCritic

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        diffusion: str = "box",
        diffusion_kwargs: dict[str, Any] | None = None,
        n_action_candidates: int = 1,
    ):
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            features_extractor_kwargs,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=True,
            normalize_images=normalize_images,
        )
        self.net_arch = [256, 256] if net_arch is None else net_arch
        self.activation_fn = activation_fn
        self.n_critics = n_critics
        self.share_features_extractor = share_features_extractor
        actor_arch, critic_arch = get_actor_critic_arch(self.net_arch)
        net_args = {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "activation_fn": activation_fn,
            "normalize_images": normalize_images,
        }
        self.actor_kwargs = {
            **net_args,
            "net_arch": actor_arch,
            "diffusion": diffusion,
            "diffusion_kwargs": diffusion_kwargs or {},
            "n_action_candidates": n_action_candidates,
        }
        self.critic_kwargs = {
            **net_args,
            "net_arch": critic_arch,
            "n_critics": n_critics,
            "share_features_extractor": share_features_extractor,
        }
        self._build(lr_schedule)

    def _build(self, lr_schedule: Schedule) -> None:
        self.actor = self.make_actor()
        self.critic = self.make_critic(self.actor.features_extractor if self.share_features_extractor else None)
        # The target never shares the features extractor of the online networks
        self.critic_target = self.make_critic()
        self.critic_target.load_state_dict(self.critic.state_dict())
        # Target networks should always be in eval mode
        self.critic_target.set_training_mode(False)

        # A shared features extractor is trained by the actor's loss alone
        critic_parameters = [
            parameter
            for name, parameter in self.critic.named_parameters()
            if not (self.share_features_extractor and "features_extractor" in name)
        ]
        self.actor.optimizer = self._make_optimizer(self.actor.parameters(), lr_schedule)
        self.critic.optimizer = self._make_optimizer(critic_parameters, lr_schedule)

    def _make_optimizer(self, parameters: Iterable[nn.Parameter], lr_schedule: Schedule) -> th.optim.Optimizer:
        kwargs = self.optimizer_kwargs
        if self.optimizer_class in FUSED_OPTIMIZERS and not FUSED_OPTIMIZER_CONFLICTS & set(kwargs):
            kwargs = {"fused": True, **kwargs}
        return self.optimizer_class(parameters, lr=lr_schedule(1), **kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            dict(
                net_arch=self.net_arch,
                activation_fn=self.activation_fn,
                features_extractor_class=self.features_extractor_class,
                features_extractor_kwargs=self.features_extractor_kwargs,
                optimizer_class=self.optimizer_class,
                optimizer_kwargs=self.optimizer_kwargs,
                n_critics=self.n_critics,
                share_features_extractor=self.share_features_extractor,
                diffusion=self.actor_kwargs["diffusion"],
                diffusion_kwargs=self.actor_kwargs["diffusion_kwargs"],
                n_action_candidates=self.actor_kwargs["n_action_candidates"],
                lr_schedule=self._dummy_schedule,  # dummy lr schedule, not needed for loading policy alone
            )
        )
        return data

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> DiffusionActor:
        return DiffusionActor(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        return ContinuousCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """
        Choose one action per observation.

        :param obs: batch of observations
        :param deterministic: a function of observation and weights alone, instead of a sample of the policy
        :return: (batch, action_dim), in [-1, 1]
        """
        if not deterministic or self.actor.n_action_candidates == 1:
            return self.actor(obs, deterministic)
        candidates = self.actor.candidate_actions(obs, self.actor.start_noise)
        best = min_q_fn(self.critic, obs)(candidates).argmax(dim=0)
        return candidates.gather(0, best[None, :, None].expand(1, -1, candidates.shape[-1])).squeeze(0)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self(observation, deterministic)

    def set_training_mode(self, mode: bool) -> None:
        """
        Put actor and critic in training or evaluation mode (batch norm, dropout); the target stays in evaluation mode.

        :param mode: if true, set to training mode, else set to evaluation mode
        """
        self.actor.set_training_mode(mode)
        self.critic.set_training_mode(mode)
        self.training = mode


MlpPolicy = DiffusionPolicy


class CnnPolicy(DiffusionPolicy):
    """
    Policy class (with both actor and critic) for DQS on images: :class:`DiffusionPolicy` with a ``NatureCNN``.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("features_extractor_class", NatureCNN)
        super().__init__(*args, **kwargs)


class MultiInputPolicy(DiffusionPolicy):
    """
    Policy class (with both actor and critic) for DQS on Dict observations: :class:`DiffusionPolicy` with a
    ``CombinedExtractor``.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs.setdefault("features_extractor_class", CombinedExtractor)
        super().__init__(*args, **kwargs)
