"""Which runs does a tier hold? Algorithms x environments x seeds of a YAML, each run with a key that names its settings."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sb3_dqs.extras import require

require("yaml")

import yaml
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.averaged import AveragedCrossQ
from sb3_dqs import DQS, PaperDQS
from sb3_dqs.checks import as_integer, check_choice
from sb3_dqs.diffusion.corrector import Corrector
from sb3_dqs.signatures import check_argument_names, default_of, keyword_arguments
from sb3_dqs.temperature import AutomaticTemperature, ScheduledTemperature

TIERS = Path(__file__).parent / "tiers"
CLASSES: dict[str, type[OffPolicyAlgorithm]] = {
    "DQS": DQS,
    "PaperDQS": PaperDQS,
    "SAC": SAC,
    "TD3": TD3,
    "TQC": TQC,
    "CrossQ": CrossQ,
    "AveragedCrossQ": AveragedCrossQ,
}

# Arguments of a class that its course of training does not depend on
WITHOUT_EFFECT = ("verbose", "tensorboard_log", "device", "seed", "stats_window_size", "_init_setup_model")

# Raised when the meaning of a setting or of a record changes, so that old results are not taken for new ones.
# 2: deterministic and sampled episodes of an evaluation start from the same states
PROTOCOL = 2

# Of a static target: its law is exp(log-density / temperature)
STATIC_TEMPERATURE = 1.0

EVALUATION = {"every": 1_000, "episodes": 20, "stochastic_episodes": 20, "deterministic_forms": False}
TIER_KEYS = ("about", "seeds", "evaluation", "algorithms", "environments", "published", "score_at", "fresh_seeds")
ALGORITHM_KEYS = ("class", "settings", "environments", "on_request")
ENV_SPEC_KEYS = ("id", "kwargs", "wrappers", "imports", "action_repeat", "n_envs", "move_favourite", "law")
MOVE_KEYS = ("at", "to", "recovered_at")
ENVIRONMENT_KEYS = (
    *ENV_SPEC_KEYS,
    *("steps", "evaluation", "settings"),
    *("scale", "published", "on_request"),
)


@dataclass(frozen=True)
class Run:
    """
    Everything that a result depends on, except for code and versions, which the result names.

    :param algorithm: name in the tier
    :param class_name: one of ``CLASSES``
    :param settings: keyword arguments of the class
    :param environment: name in the tier
    :param env_spec: ``id``, ``kwargs``, ``wrappers`` (of ``gymnasium.wrappers``), ``imports`` (modules that register it) and
        ``action_repeat`` (steps of the environment per action), ``n_envs`` (environments that the agent acts in at once, whose
        steps are counted together), ``move_favourite`` (of the goals of an arena, the one that is reached most is moved after
        the evaluation ``at`` a step, to its place in the list ``to``; the agent has recovered when its sampled episodes return
        ``recovered_at``), or ``law``, the name of a static target
    :param seed: of training
    :param steps: of the agent; updates, for a static target
    :param evaluation: ``every`` (steps), ``episodes`` (deterministic), ``stochastic_episodes``, ``deterministic_forms``
        (whether the trained policy is also evaluated with other numbers of candidates, and, where there are goals, at lower
        temperatures)
    :param defaults: what the class takes where ``settings`` says nothing, so that a changed default makes a new run
    :param protocol: version of the runner's meaning of all this
    """

    algorithm: str
    class_name: str
    settings: dict[str, Any]
    environment: str
    env_spec: dict[str, Any]
    seed: int
    steps: int
    evaluation: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    protocol: int = PROTOCOL

    @property
    def key(self) -> str:
        """Hash of all settings: equal keys are equal runs."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        """Readable and unique: names the result file."""
        return f"{self.environment}_{self.algorithm}_{self.seed}_{self.key}"


@dataclass(frozen=True)
class Tier:
    """
    :param name: of the YAML file, without its ending
    :param about: what it answers
    :param runs: all of them, those on request included
    :param on_request: names of algorithms and environments that run only if named
    :param scales: of each environment: the returns that count as 0 and as 1, where given
    :param published_tasks: of each environment: its name in :mod:`benchmarks.published`, where given
    :param published_methods: names of methods there that the report shows beside the tier's algorithms
    :param score_at: steps of the agent at which the report names the mean score over environments
    :param fresh_seeds: of each environment: those whose runs were first completed after the settings of the first algorithm
        were frozen, where given
    """

    name: str
    about: str
    runs: list[Run]
    on_request: set[str]
    scales: dict[str, tuple[float, float]]
    published_tasks: dict[str, str] = field(default_factory=dict)
    published_methods: tuple[str, ...] = ()
    score_at: tuple[int, ...] = ()
    fresh_seeds: dict[str, list[int]] = field(default_factory=dict)

    def action_repeat(self, environment: str) -> int:
        """
        :param environment: name
        :return: steps of the environment per action
        """
        return next(run.env_spec.get("action_repeat", 1) for run in self.runs if run.environment == environment)

    def select(
        self,
        algorithms: Collection[str] | None = None,
        environments: Collection[str] | None = None,
        seeds: Collection[int] | None = None,
    ) -> list[Run]:
        """
        :param algorithms: names; None for all that are not on request
        :param environments: names; None for all that are not on request
        :param seeds: None for all
        :return: runs, seed by seed, so that a stopped benchmark holds all pairs equally often
        :raises ValueError: if a name or seed is not in the tier
        """
        named = {
            "algorithm": (algorithms, {run.algorithm: None for run in self.runs}),
            "environment": (environments, {run.environment: None for run in self.runs}),
        }
        for what, (names, known) in named.items():
            for name in names or ():
                check_choice(f"{what} of tier {self.name!r}", name, known)
        known_seeds = sorted({run.seed for run in self.runs})
        if unknown := set(seeds or ()) - set(known_seeds):
            raise ValueError(f"seeds of tier {self.name!r} are {known_seeds}, got {sorted(unknown)}; add them to its YAML")

        def wanted(name: str, names: Collection[str] | None) -> bool:
            return name not in self.on_request if names is None else name in names

        selected = [
            run
            for run in self.runs
            if wanted(run.algorithm, algorithms)
            and wanted(run.environment, environments)
            and (seeds is None or run.seed in seeds)
        ]
        return sorted(selected, key=lambda run: run.seed)


def load_tier(name_or_path: str) -> Tier:
    """
    :param name_or_path: ``small`` for ``benchmarks/tiers/small.yml``, or the path of a YAML file
    :return: the tier
    :raises ValueError: if there is no such tier, or it holds an unknown key, algorithm or environment
    """
    path = Path(name_or_path)
    if path.suffix not in (".yml", ".yaml"):
        check_choice("tier", name_or_path, sorted(file.stem for file in TIERS.glob("*.yml")))
        path = TIERS / f"{name_or_path}.yml"
    content = yaml.safe_load(path.read_text())
    _check_keys(f"tier {path.name}", content, TIER_KEYS)
    for name in [*content["algorithms"], *content["environments"]]:
        if {"/", "\\"} & set(str(name)):
            raise ValueError(f"{name!r} names files of results, and must not hold a slash; an environment's id goes into 'id'")
    seeds = content["seeds"]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds of a tier must differ, or one run would count as several, got {seeds}")
    runs = []
    for algorithm, entry in content["algorithms"].items():
        _check_keys(f"algorithm {algorithm!r}", entry, ALGORITHM_KEYS)
        check_choice(f"class of algorithm {algorithm!r}", entry["class"], CLASSES)
        for environment in entry.get("environments", content["environments"]):
            check_choice(f"environment of algorithm {algorithm!r}", environment, content["environments"])
            environment_entry = content["environments"][environment]
            _check_keys(f"environment {environment!r}", environment_entry, ENVIRONMENT_KEYS)
            if "law" in environment_entry and not issubclass(CLASSES[entry["class"]], DQS):
                continue  # static targets have no reward to learn from
            runs += [_run(content, algorithm, environment, seed) for seed in seeds]
    _check_report(content, runs)
    entries = {**content["algorithms"], **content["environments"]}
    on_request = {name for name, entry in entries.items() if entry.get("on_request")}
    scales = {name: tuple(entry["scale"]) for name, entry in content["environments"].items() if "scale" in entry}
    return Tier(
        path.stem,
        content["about"],
        runs,
        on_request,
        scales,
        {name: entry["published"] for name, entry in content["environments"].items() if "published" in entry},
        tuple(content.get("published", ())),
        tuple(content.get("score_at", ())),
        content.get("fresh_seeds", {}),
    )


def _run(content: dict[str, Any], algorithm: str, environment: str, seed: int) -> Run:
    algorithm_entry, environment_entry = content["algorithms"][algorithm], content["environments"][environment]
    class_name = algorithm_entry["class"]
    # what the environment asks of all, then of this class; the algorithm has the last word
    settings_of = environment_entry.get("settings", {})
    _check_keys(f"settings of environment {environment!r}", settings_of, ("all", *CLASSES))
    settings = {**settings_of.get("all", {}), **settings_of.get(class_name, {}), **algorithm_entry.get("settings", {})}
    check_argument_names(CLASSES[class_name], settings)
    evaluation = {**EVALUATION, **content.get("evaluation", {}), **environment_entry.get("evaluation", {})}
    _check_keys("evaluation", evaluation, tuple(EVALUATION))
    move = environment_entry.get("move_favourite")
    _check_keys("move_favourite", move or {}, MOVE_KEYS)
    if move is not None and (missing := set(MOVE_KEYS) - set(move)):
        raise ValueError(f"environment {environment!r}: move_favourite must hold {sorted(missing)} too")
    where = f"environment {environment!r}: n_envs"
    n_envs = as_integer(where, environment_entry.get("n_envs", 1), 1, "it is how many the agent acts in at once")
    steps = as_integer(f"environment {environment!r}: steps", environment_entry.get("steps"), 1, "YAML takes 1e5 for text")
    every = as_integer("evaluation's every", evaluation["every"], 1, "it is in steps of the agent")
    counted = {"steps": steps, "evaluation's every": every}
    if move is not None:
        counted["move_favourite's at"] = move["at"]
    for name, n_steps in counted.items():
        if n_steps % n_envs:  # all environments take a step at once, so it would be stepped over
            raise ValueError(f"environment {environment!r}: {name} must be a multiple of n_envs, {n_envs}, got {n_steps}")
    if move is not None and (move["at"] % every or not 0 < move["at"] < steps):
        raise ValueError(
            f"environment {environment!r}: move_favourite's at must be the step of an evaluation before the last, got "
            f"{move['at']}"
        )
    static = {"temperature": STATIC_TEMPERATURE} if "law" in environment_entry else {}
    return Run(
        algorithm=algorithm,
        class_name=class_name,
        settings=settings,
        environment=environment,
        env_spec={key: environment_entry[key] for key in ENV_SPEC_KEYS if key in environment_entry},
        seed=seed,
        steps=steps,
        evaluation=evaluation,
        defaults=default_settings(CLASSES[class_name], {**static, **settings}),
    )


def _check_report(content: dict[str, Any], runs: Sequence[Run]) -> None:
    """What the report is asked for is among what the runs record."""
    for run in runs:
        for step in content.get("score_at", ()):
            every = run.evaluation["every"]
            if "scale" in content["environments"][run.environment] and (step % every or not 0 < step <= run.steps):
                raise ValueError(
                    f"score_at must hold evaluations of environment {run.environment!r}, got {step}; it is evaluated every "
                    f"{every} steps up to {run.steps}"
                )
    for environment, seeds in content.get("fresh_seeds", {}).items():
        check_choice("each environment of fresh_seeds", environment, content["environments"])
        if unknown := set(seeds) - set(content["seeds"]):
            raise ValueError(f"fresh_seeds of {environment!r} must be seeds of the tier, got {sorted(unknown)}")


def default_settings(algorithm: type[OffPolicyAlgorithm], settings: dict[str, Any]) -> dict[str, Any]:
    """
    :param algorithm: one of ``CLASSES``
    :param settings: arguments that are given
    :return: name -> default of each other argument. For DQS and its subclasses ``policy_kwargs`` and ``component_kwargs`` hold
        the defaults of the objects that take them, as far as they are not given.
    """
    defaults = _defaults_of(algorithm, given=settings)
    if not issubclass(algorithm, DQS):
        return defaults
    policy: Any = algorithm.policy_aliases["MlpPolicy"]
    is_automatic = settings.get("temperature", default_of(algorithm, "temperature")) == "auto"
    components = {"diffusion": policy.actor_class.diffusion_class}
    if "temperature" in algorithm.components:
        components["temperature"] = AutomaticTemperature if is_automatic else ScheduledTemperature
    # what the algorithm has an argument of its own for, it passes on
    own, given = keyword_arguments(algorithm)[0], settings.get("component_kwargs", {})
    if "n_corrector_proposals" in own:
        components["corrector"] = Corrector
    if policy.actor_class.refiner_class is not None:
        components["refiner"] = policy.actor_class.refiner_class
    defaults["policy_kwargs"] = _defaults_of(policy, given={*own, *settings.get("policy_kwargs", {})})
    defaults["component_kwargs"] = {
        name: _defaults_of(component, given={*own, *given.get(name, {})}) for name, component in components.items()
    }
    return defaults


def _defaults_of(constructor: type, given: Collection[str]) -> dict[str, Any]:
    return {
        name: _recordable(parameter.default)
        for name, parameter in keyword_arguments(constructor)[0].items()
        if name not in (*WITHOUT_EFFECT, *given)
    }


def _recordable(value: Any) -> Any:
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value


def _check_keys(where: str, entry: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in entry:
        check_choice(f"each key of {where}", key, known)
