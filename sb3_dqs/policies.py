"""How do observations become actions? Features -> diffusion actor -> action in [-1, 1]; the networks and their optimisers."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    get_actor_critic_arch,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.utils import polyak_update
from torch import nn
from torch.nn.parameter import is_lazy

from sb3_dqs.averaging import follow, polynomial_decay_share
from sb3_dqs.checks import InputError
from sb3_dqs.critics import ADAMS, BatchRenormCritic, evaluating, smallest_q, smallest_q_fn
from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.diffusion.choice import Candidates, choose_by_law, pick
from sb3_dqs.diffusion.corrector import Corrector
from sb3_dqs.diffusion.estimators import QFunction, Regression
from sb3_dqs.diffusion.networks import RunningNormalization
from sb3_dqs.diffusion.refiner import Refiner
from sb3_dqs.diffusion.samplers import PassCallback

SelfDiffusionPolicy = TypeVar("SelfDiffusionPolicy", bound="DiffusionPolicy")

START_NOISE_SEED = 0

# Of which policy actions of training are asked, if it cannot be told what noise to take. Each thread has its own: another one
# may ask for actions of predict() meanwhile
EXPLORING: ContextVar["DiffusionPolicy | None"] = ContextVar("EXPLORING", default=None)

# Networks that follow another one, and which
FOLLOWED = {"critic_target": "critic", "critic_average": "critic", "actor_average": "actor"}

# Their modules neither keep a tensor of one call for another nor ask for gradients, so that inference mode, which takes a
# seventh off the time of an action, is safe with them
KNOWN_PACKAGES = {"torch", "stable_baselines3", "sb3_contrib", "sb3_dqs"}

# Arguments of ADAMS that one pass over all parameters cannot be combined with
CONFLICTS_WITH_FUSED = {"foreach", "differentiable", "fused"}


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


class BoundedPolicy(BasePolicy):
    """What leaves an actor or a policy is finite and inside the bounds of the action space."""

    action_space: spaces.Box
    allows_inference_mode: bool = False

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self(observation, deterministic)

    def predict(self, *args: Any, **kwargs: Any) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As in SB3. :raises ValueError: if an action is not finite"""
        with th.inference_mode(self.allows_inference_mode):
            actions, state = super().predict(*args, **kwargs)
        return checked_actions(actions), state

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        """
        :param scaled_action: in [-1, 1]
        :return: in the bounds of the action space, which rounding does not leave
        """
        return np.minimum(np.maximum(super().unscale_action(scaled_action), self.action_space.low), self.action_space.high)


class DiffusionActor(BoundedPolicy):
    """
    Actor (policy) network of DQS: a diffusion model over actions, conditioned on the observation.

    An actor of one's own overrides :meth:`forward`, which then makes all actions: single ones, not chosen among several, and
    not corrected.

    :param observation_space: Observation space
    :param action_space: Action space
    :param net_arch: Sizes of the hidden layers
    :param features_extractor: Network to extract features (a CNN when using images, a nn.Flatten() layer otherwise)
    :param features_dim: Number of features
    :param diffusion_kwargs: Settings of the diffusion, see :class:`~sb3_dqs.diffusion.box.BoxDiffusion`
    :param refiner_kwargs: Settings of the refiner, see :class:`~sb3_dqs.diffusion.refiner.Refiner`
    :param n_action_candidates: Number of fixed start noises; the first one gives the actor's deterministic action
    :param activation_fn: Activation function
    :param normalize_images: Whether to normalize images or not, dividing by 255.0 (True by default)
    """

    normalization_class: ClassVar[type[nn.Module]] = RunningNormalization
    diffusion_class: ClassVar[type[nn.Module]] = BoxDiffusion
    refiner_class: ClassVar[type[Refiner] | None] = Refiner

    action_space: spaces.Box
    features_extractor: BaseFeaturesExtractor
    normalization: Any
    diffusion: Any
    refiner: Any
    start_noise: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        diffusion_kwargs: dict[str, Any],
        refiner_kwargs: dict[str, Any],
        n_action_candidates: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
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
        self.diffusion_kwargs = diffusion_kwargs
        self.refiner_kwargs = refiner_kwargs
        self.n_action_candidates = n_action_candidates
        self.action_dim = get_action_dim(action_space)
        self.register_buffer("start_noise", fixed_start_noise(n_action_candidates, self.action_dim), persistent=False)
        shape = (features_dim, self.action_dim, net_arch, activation_fn)
        self.normalization = self.normalization_class(features_dim)
        self.diffusion = self.diffusion_class(*shape, **diffusion_kwargs)
        self.refiner = None if self.refiner_class is None else self.refiner_class(*shape, **refiner_kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return _arguments_of(DiffusionActor, self)

    @property
    def decides_alone(self) -> bool:
        """Whether ``forward`` is a user's, which may keep actions out of places: then none is chosen or moved after it."""
        return type(self).forward is not DiffusionActor.forward

    @property
    def noise_dim(self) -> int:
        """How many random numbers a sampled action takes: where the sampler starts, and what the refiner adds and draws."""
        return self.action_dim if self.refiner is None else 3 * self.action_dim

    def conditions(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: batch of observations
        :return: (batch, features_dim), normalised features: what diffusion and refiner are told of the observations
        """
        return self.normalization(self.extract_features(obs, self.features_extractor))

    def forward(self, obs: PyTorchObs, deterministic: bool = False, noise: th.Tensor | None = None) -> th.Tensor:
        """
        Sample one action per observation.

        :param obs: batch of observations
        :param deterministic: start from the first of the fixed noises instead of random noise
        :param noise: (batch, noise_dim), standard normal, that makes the sample (of a sampler that draws noise at every step,
            as that of ``PaperDQS``, where it starts); drawn by default
        :return: (batch, action_dim), in [-1, 1]
        """
        if deterministic:
            return self.fixed_candidates(obs)[0]
        features = self.conditions(obs)
        if noise is None:
            noise = th.randn_like(features[:, :1].expand(-1, self.noise_dim))
        start_noise, refiner_noise = noise.tensor_split([self.action_dim], dim=1)
        actions = self.sample_actions(features, start_noise)
        return actions if self.refiner is None else self.refiner.refine(features, actions, refiner_noise)

    def candidates(self, obs: PyTorchObs, n_candidates: int) -> Candidates:
        """
        Several samples per observation, and what they are drawn from: Gaussians of the refiner, and its noise.

        :param obs: batch of observations
        :param n_candidates: per observation
        :return: n_candidates draws of the actor, to be chosen among
        """
        features = self.conditions(obs)
        start_noise, drawn = th.randn(
            (2, n_candidates, len(features), self.action_dim), dtype=features.dtype, device=features.device
        )
        return self.refiner.candidates(features, self.diffusion.sample_candidates(features, start_noise), drawn)

    def regress(
        self, features: th.Tensor, actions: th.Tensor, n_on_policy: int, q_fn: QFunction, temperature: th.Tensor
    ) -> list[Regression]:
        """
        What the actor learns in one update.

        :param features: (batch, features_dim), of the observations of the regression points, may require gradients
        :param actions: (batch, action_dim), in [-1, 1]
        :param n_on_policy: so many first actions are fresh ones of the policy
        :param q_fn: maps actions (n, batch, action_dim) to Q values (n, batch)
        :param temperature: scalar > 0, in units of Q
        :return: of the diffusion, and of the refiner
        """
        self.normalization.observe(features)
        features = self.normalization(features)
        noise = self.diffusion.draw_noise(actions)
        of_diffusion = self.diffusion.regress(features, actions, n_on_policy, q_fn, temperature, noise)
        noise = th.randn_like(actions.repeat(1, 2))
        return [of_diffusion, self.refiner.regress(features, actions, q_fn, temperature, noise)]

    def sample_actions(self, features: th.Tensor, start_noise: th.Tensor, callback: PassCallback | None = None) -> th.Tensor:
        """
        :param features: (batch, features_dim), of :meth:`conditions`
        :param start_noise: (batch, action_dim), standard normal
        :param callback: called with the noisy actions before each network pass
        :return: (batch, action_dim), samples of the diffusion, not yet refined, in [-1, 1]
        """
        return self.diffusion.sample_actions(features, start_noise, callback=callback)

    def fixed_candidates(self, obs: PyTorchObs) -> th.Tensor:
        """
        Actions from the fixed start noises, each the middle of what it is refined to: functions of observation and weights
        alone.

        :param obs: batch of observations
        :return: (n_action_candidates, batch, action_dim), in [-1, 1]
        """
        features = self.conditions(obs)
        # .shape, not len(): exported programs keep the batch size open
        start_noise = self.start_noise.unsqueeze(1).expand(-1, features.shape[0], -1)
        samples = self.diffusion.sample_candidates(features, start_noise)
        return samples if self.refiner is None else self.refiner.middles(features, samples)


class DiffusionPolicy(BoundedPolicy):
    """
    Policy class (with both actor and critic) for DQS.

    A policy of one's own overrides :meth:`forward`; whether correlated exploration reaches it, :attr:`takes_noise` tells.

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
    :param critic_betas: of Adam or AdamW for the critic, unless ``optimizer_kwargs`` hold betas
    :param critic_class: maps observations and actions to a tuple of Q values; the policy follows the smallest of them.
        ``BatchRenormCritic`` by default, that of CrossQ; SB3's ``ContinuousCritic`` is the plain one, which wants a target
        network (``tau=0.005``), a smaller ``learning_rate`` and ``critic_betas=(0.9, 0.999)``
    :param critic_kwargs: Keyword arguments to pass to the critic
    :param n_critics: Number of critic networks to create.
    :param share_features_extractor: Whether to share or not the features extractor between the actor and the critic
        (this saves computation time); it is then trained by the actor's loss alone
    :param has_target_network: whether TD targets are asked of a slowly following copy of the critic; set by
        :class:`~sb3_dqs.dqs.DQS`
    :param has_average_critic: whether the policy follows a running average of the critic instead of the critic itself; set
        by :class:`~sb3_dqs.dqs.DQS`
    :param has_average_actor: whether ``predict()`` asks a running average of the actor instead of the actor itself; set by
        :class:`~sb3_dqs.dqs.DQS`
    :param diffusion_kwargs: Settings of the diffusion; set by :class:`~sb3_dqs.dqs.DQS`
    :param refiner_kwargs: Settings of the refiner; set by :class:`~sb3_dqs.dqs.DQS`
    :param n_action_candidates: A sampled action is one of this many draws, by the weights of exp(Q / temperature), the
        deterministic one the best of as many by the smallest Q of the ensemble; set by :class:`~sb3_dqs.dqs.DQS`
    :param corrector_kwargs: of the corrector of actions of training and of sampled ones of ``predict()``, see
        :class:`~sb3_dqs.diffusion.corrector.Corrector`; set by :class:`~sb3_dqs.dqs.DQS`
    """

    actor_class: ClassVar[type[DiffusionActor]] = DiffusionActor

    action_space: spaces.Box
    actor: DiffusionActor
    critic: Any
    critic_target: Any
    critic_average: Any
    actor_average: DiffusionActor | None
    n_averaged_actors: th.Tensor
    # of the law exp(Q / temperature) that sampled actions follow, in units of Q; DQS renews it as it trains
    temperature: th.Tensor
    is_learning: bool = False

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
        critic_betas: tuple[float, float] = (0.5, 0.999),
        critic_class: type[BaseModel] = BatchRenormCritic,
        critic_kwargs: dict[str, Any] | None = None,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        *,
        has_target_network: bool,
        has_average_critic: bool,
        has_average_actor: bool,
        diffusion_kwargs: dict[str, Any],
        refiner_kwargs: dict[str, Any],
        n_action_candidates: int,
        corrector_kwargs: dict[str, Any],
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
        self.critic_betas = critic_betas
        self.critic_class = critic_class
        self.critic_kwargs = critic_kwargs or {}
        self.n_critics = n_critics
        self.share_features_extractor = share_features_extractor
        self.has_target_network = has_target_network
        self.has_average_critic = has_average_critic
        self.has_average_actor = has_average_actor
        self.diffusion_kwargs = diffusion_kwargs
        self.refiner_kwargs = refiner_kwargs
        self.n_action_candidates = n_action_candidates
        self.corrector_kwargs = corrector_kwargs
        self.corrector = Corrector(**corrector_kwargs)
        self.register_buffer("temperature", th.ones(()))
        self.register_buffer("n_averaged_actors", th.zeros(()))
        self._build(lr_schedule)

    def _build(self, lr_schedule: Schedule) -> None:
        self.actor = self.make_actor()
        if any(map(is_lazy, self.actor.parameters())):
            raise InputError(
                f"features_extractor_class {self.features_extractor_class.__name__} has lazy modules, whose sizes copies of "
                "the networks would not learn; give the sizes, as in nn.Linear(n_in, n_out)"
            )
        self.actor_average = self._copy_of_actor() if self.has_average_actor else None
        self.critic = self.make_critic(self.actor.features_extractor if self.share_features_extractor else None)
        self.critic_target = self._copy_of_critic() if self.has_target_network else None
        self.critic_average = self._copy_of_critic() if self.has_average_critic else None

        # A shared features extractor is trained by the actor's loss alone
        critic_parameters = [
            parameter
            for name, parameter in self.critic.named_parameters()
            if not (self.share_features_extractor and "features_extractor" in name)
        ]
        is_adam = self.optimizer_class in ADAMS
        betas = {"betas": self.critic_betas} if is_adam else {}
        fused = {"fused": True} if is_adam and not CONFLICTS_WITH_FUSED & set(self.optimizer_kwargs) else {}
        learning_rate = lr_schedule(1)
        self.actor.optimizer = self.optimizer_class(
            self.actor.parameters(),
            lr=learning_rate,  # type: ignore[call-arg]
            **{**fused, **self.optimizer_kwargs},
        )
        self.critic.optimizer = self.optimizer_class(
            critic_parameters,
            lr=learning_rate,  # type: ignore[call-arg]
            **{**fused, **betas, **self.optimizer_kwargs},
        )
        packages = {type(module).__module__.split(".")[0] for module in self.modules()}
        # guided proposals follow gradients of the critic
        self.allows_inference_mode = packages <= KNOWN_PACKAGES and self.corrector.n_guided == 0

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # dummy lr schedule, not needed for loading policy alone
        return {**_arguments_of(DiffusionPolicy, self), "lr_schedule": self._dummy_schedule}

    def _network_kwargs(self, net_arch: list[int]) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "net_arch": net_arch,
            "activation_fn": self.activation_fn,
            "normalize_images": self.normalize_images,
        }

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> DiffusionActor:
        actor_arch, _ = get_actor_critic_arch(self.net_arch)
        kwargs = {
            **self._network_kwargs(actor_arch),
            "diffusion_kwargs": self.diffusion_kwargs,
            "refiner_kwargs": self.refiner_kwargs,
            "n_action_candidates": self.n_action_candidates,
        }
        return self.actor_class(**self._update_features_extractor(kwargs, features_extractor)).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> Any:
        _, critic_arch = get_actor_critic_arch(self.net_arch)
        kwargs = {
            **self._network_kwargs(critic_arch),
            "n_critics": self.n_critics,
            "share_features_extractor": self.share_features_extractor,
            **self.critic_kwargs,
        }
        return self.critic_class(**self._update_features_extractor(kwargs, features_extractor)).to(self.device)

    def _copy_of_actor(self) -> DiffusionActor:
        # its initialisation is forgotten, and must not move the random numbers of all that follows
        with th.random.fork_rng(devices=[]):
            average = self.make_actor()
        average.load_state_dict(self.actor.state_dict())
        average.set_training_mode(False)
        return average

    def _copy_of_critic(self) -> Any:
        # a copy never shares the features extractor of the online networks
        follower = self.make_critic()
        follower.load_state_dict(self.critic.state_dict())
        # and is always in eval mode
        follower.set_training_mode(False)
        return follower

    @property
    def device(self) -> th.device:
        """As in SB3, which looks for the first parameter each time."""
        return self.temperature.device

    @property
    def deployed_actor(self) -> DiffusionActor:
        """The actor that ``predict()`` asks: the average, or the actor itself without one and where it explores."""
        # compilers do not know context variables, and nothing explores in what they make
        is_exploring = not th.compiler.is_compiling() and EXPLORING.get() is self
        return self.actor if self.actor_average is None or is_exploring else self.actor_average

    @contextmanager
    def exploring(self) -> Iterator[None]:
        """Inside, ``predict()`` asks the actor itself: for policies of one's own, which cannot be told what noise to take."""
        before = EXPLORING.set(self)
        try:
            yield
        finally:
            EXPLORING.reset(before)

    @property
    def law_critic(self) -> Any:
        """The critic whose law exp(Q / temperature) the policy follows: the average, or the critic itself without one."""
        return self.critic if self.critic_average is None else self.critic_average

    def update_average_of_critic(self, tau: float) -> None:
        """
        Let the averaged critic, if any, follow the critic.

        :param tau: share of the critic in the average, in (0, 1]
        """
        if self.critic_average is not None:
            follow(self.critic_average, self.critic, tau)

    def update_average_of_actor(self, tau: float) -> None:
        """
        Let the averaged actor, if any, follow the actor, more closely as long as there were few updates.

        :param tau: share of the actor in the average, in (0, 1]
        """
        if self.actor_average is not None:
            self.n_averaged_actors += 1
            follow(self.actor_average, self.actor, polynomial_decay_share(self.n_averaged_actors).clamp(min=tau))

    def update_target(self, tau: float) -> None:
        """
        Let the target network, if any, follow the critic.

        :param tau: share of the critic in the average, in [0, 1]
        """
        if self.critic_target is None:
            return
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), tau)
        # statistics of normalisation layers, see SB3's issue #996
        for theirs, ours in zip(self.critic.buffers(), self.critic_target.buffers(), strict=True):
            ours.copy_(theirs)

    @property
    def noise_dim(self) -> int:
        """How many random numbers an action takes in training."""
        return self.actor.noise_dim + self.corrector.noise_dim(self.actor.action_dim)

    @property
    def takes_noise(self) -> bool:
        """
        Whether actions can be made from given noise. Not where a method on the way to an action is a user's that takes none:
        it is then asked as by ``predict()``, and explores by noise of its own.
        """
        is_ours = type(self).predict is BoundedPolicy.predict and type(self)._predict is BoundedPolicy._predict
        return is_ours and all(_has_noise(type(part).forward) for part in (self, self.actor))

    def follow_temperature(self, temperature: th.Tensor) -> None:
        """
        :param temperature: of the law exp(Q / temperature) from now on, scalar > 0, in units of Q
        """
        self.temperature.copy_(temperature)

    def forward(self, obs: PyTorchObs, deterministic: bool = False, noise: th.Tensor | None = None) -> th.Tensor:
        """
        Choose one action per observation.

        :param obs: batch of observations
        :param deterministic: a function of observation and weights alone, instead of a sample of the policy
        :param noise: (batch, noise_dim), standard normal, that makes an action of training, see :meth:`explore`; by default
            the sample follows the law, see :meth:`sample_of_the_law`
        :return: (batch, action_dim), in [-1, 1]
        """
        if deterministic:
            return self.best_candidate(obs)
        return self.sample_of_the_law(obs) if noise is None else self.explore(obs, noise)

    def sample_of_the_law(self, obs: PyTorchObs) -> th.Tensor:
        """
        A draw from exp(Q / temperature), as near as it gets: one of several samples of the actor, by their weights, which
        brings modes to their shares, moved by the corrector, which brings each to its width.

        :param obs: batch of observations
        :return: (batch, action_dim), in [-1, 1]
        """
        actor = self.deployed_actor
        is_chosen = self.n_action_candidates > 1 and actor.refiner is not None
        if actor.decides_alone or not (is_chosen or self.corrector):
            return actor(obs)
        with evaluating(self.law_critic):
            q_fn = smallest_q_fn(self.law_critic, obs)
            if is_chosen:
                candidates = actor.candidates(obs, self.n_action_candidates)
                actions = choose_by_law(candidates, q_fn, self.temperature, th.rand_like(candidates.actions[0, :, 0]))
            else:
                actions = actor(obs)
            return self.corrector(q_fn, actions, self.temperature)

    def explore(self, obs: PyTorchObs, noise: th.Tensor) -> th.Tensor:
        """
        An action of training: a single sample of the actor, moved a little by the corrector. All modes that the actor knows
        have their share of these, also those that errors of the critic have made light by its law.

        :param obs: batch of observations
        :param noise: (batch, noise_dim), standard normal: the actor's, then the corrector's
        :return: (batch, action_dim), in [-1, 1]
        """
        actor_noise, corrector_noise = noise.tensor_split([self.actor.noise_dim], dim=1)
        actions = self.actor(obs, noise=actor_noise)
        if self.actor.decides_alone or not self.corrector:
            return actions
        with evaluating(self.law_critic):
            return self.corrector(smallest_q_fn(self.law_critic, obs), actions, self.temperature, corrector_noise)

    def sample_from(self, observation: np.ndarray | dict[str, np.ndarray], noise: th.Tensor) -> np.ndarray:
        """
        Explore: sampled actions for observations of environments from given noise.

        :param observation: of all environments
        :param noise: (n_envs, noise_dim), standard normal
        :return: (n_envs, *action_shape), in [-1, 1]
        :raises ValueError: if an action is not finite
        """
        self.set_training_mode(False)
        observations, _ = self.obs_to_tensor(observation)
        with th.no_grad():
            actions = self(observations, noise=noise).cpu().numpy()
        return checked_actions(actions).reshape((-1, *self.action_space.shape))  # type: ignore[misc]

    def best_candidate(self, obs: PyTorchObs) -> th.Tensor:
        """
        The best of the actor's candidates by the smallest Q of the ensemble: the middle of a law with several modes may be
        the worst of actions, so that several start noises are tried.

        :param obs: batch of observations
        :return: (batch, action_dim), in [-1, 1]
        """
        actor = self.deployed_actor
        if self.n_action_candidates == 1 or actor.decides_alone:
            return actor(obs, deterministic=True)
        candidates = actor.fixed_candidates(obs)
        with evaluating(self.law_critic):
            best = smallest_q(self.law_critic, obs, candidates).argmax(dim=0)
        return pick(candidates, best)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As in torch; a copy that was not saved starts as what it follows, one that is not wanted is left out."""
        state = {name: value for name, value in state_dict.items() if name.split(".")[0] not in FOLLOWED}
        for name in self.state_dict():
            part, _, rest = name.partition(".")
            if part in FOLLOWED:
                followed = state_dict.get(f"{FOLLOWED[part]}.{rest}")
                if name in state_dict:
                    state[name] = state_dict[name]
                elif followed is not None:  # with ``assign``, it would be the network itself
                    state[name] = copy.deepcopy(followed)
        actors = {name.split(".")[0] for name in state_dict} & {"actor", "actor_average"}
        if actors == {"actor"}:  # the average starts anew
            state["n_averaged_actors"] = th.zeros(())
        return super().load_state_dict(state, strict, assign)

    def train(self: SelfDiffusionPolicy, mode: bool = True) -> SelfDiffusionPolicy:
        """As in torch; copies stay in evaluation mode."""
        super().train(mode)
        for name in FOLLOWED:
            if (follower := getattr(self, name)) is not None:
                follower.eval()
        return self

    @contextmanager
    def learning(self) -> Iterator[None]:
        """
        Inside, actor and critic are in training mode, and stay there: ``predict()`` of another thread asks their averages, if
        there are some, but would put them into evaluation mode, as SB3's does. Outside they are in evaluation mode, so that
        whoever asks for Q values neither teaches the critic nor asks about a batch.
        """
        self.set_training_mode(True)
        self.is_learning = True
        try:
            yield
        finally:
            self.is_learning = False
            self.set_training_mode(False)

    def set_training_mode(self, mode: bool) -> None:
        """
        Put actor and critic in training or evaluation mode (batch norm, dropout); their copies stay in evaluation mode.
        Without effect inside of :meth:`learning`.

        :param mode: if true, set to training mode, else set to evaluation mode
        """
        if not self.is_learning and not self.training == self.actor.training == self.critic.training == mode:
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


def _arguments_of(constructor: type, made: Any) -> dict[str, Any]:
    """What an object was made with, which it keeps under the names of the arguments, but for a learning rate's schedule."""
    names = set(inspect.signature(constructor.__init__).parameters) - {"self", "lr_schedule"}  # type: ignore[misc]
    return {name: getattr(made, name) for name in names}


@functools.cache
def _has_noise(forward: Callable) -> bool:
    return "noise" in inspect.signature(forward).parameters


def checked_actions(actions: np.ndarray) -> np.ndarray:
    """
    :param actions: (batch, *action_shape), about to leave the policy, or one action alone
    :return: the same
    :raises ValueError: if one is not finite
    """
    if not np.isfinite(actions).all():
        raise InputError(
            f"the policy gives actions that are not finite: {actions}; look for NaN, infinite or enormous values in the "
            "observations (SB3's VecCheckNan finds them), and for NaN in the parameters of the policy"
        )
    return actions
