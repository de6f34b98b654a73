"""What each part of refinement gives: arms grown from a shared trunk, on clean and damaged images.

    python workflows/benchmarks/refinement/ablation.py bundles/hippocampus_mr \\
        --data Task04_Hippocampus --out ablation --steps 600 --arm-steps 200 --seeds 0 1 2 3 4

For each seed a U-Net is trained (the trunk), and from it every arm of ``ARMS``. Test cases are of
other patients, as they are and with kinds of damage that no training saw (``unseen.py``). Quality
is calibrated on held-back cases as a training does it. What may be claimed is decided by
``claims.py``. ``--stage train`` and ``--stage judge`` with other ``--seeds`` may run at the same
time; a call without a stage does what is left and writes ``ablation.md`` and ``ablation.json``.
``--learn-from N`` takes only the first N patients to learn from.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arms import ARMS as CHANGES
from arms import list_without_test, spec_of, split_cases
from claims import Change, Table, change, verdict
from critics import Distances, TwoScales
from figures import aurc, auroc, covered, failures_found, spearman
from quality import CLEAN, SEEN, SHIFTED, conditions, heading
from scipy.ndimage import label as components
from trunks import Grown, MakeCritic, grow_refiner, grow_unet, kept
from unseen import UNSEEN

from medseg._support.files import write_atomically
from medseg._support.provenance import collect_provenance
from medseg.bundle.spec import BundleSpec, QualityFinding, RefinementSpec
from medseg.datasets.cases import Case
from medseg.datasets.dataset import Dataset, open_dataset
from medseg.datasets.integrity import open_case
from medseg.labels import LabelSet
from medseg.metrics.metrics import score_case
from medseg.metrics.statistics import summarise
from medseg.networks.building import build_network
from medseg.networks.inferers import build_window_inferer
from medseg.networks.refiner import build_refined, load_refined
from medseg.preprocessing.grid import compute_network_grid
from medseg.preprocessing.network_input import NetworkInput
from medseg.preprocessing.resampling import resample_nearest
from medseg.quality.calibration import (
    TEMPERATURES,
    CalibrationSample,
    calibrate,
    estimate_quality,
)
from medseg.volume import Array, Volume

PLAIN, LONGER, MEAN_OF_TWO = "U-Net", "U-Net, same CPU", "mean of two U-Nets"
JOINT, HEAD, CRITIC = "U-Net + critic", "refiner", "refiner + critic"
DAMAGED = "refiner, damaged images only"
FURTHER_RATE = 0.3
"""Of the trunk's learning rate, for a U-Net that is trained further."""

KINDS_EACH = 2
"""Kinds of unseen damage for each test case; all five would take twice as long to judge."""

SEEN_IN_MASK = 0.25
"""As in medseg: a structure nowhere more probable, and without a voxel, is not there."""

QUALITY = {
    "Spearman": spearman,
    "AUROC": auroc,
    "failures in the worst 20 %": failures_found,
    "AURC": aurc,
}


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to go on from a trunk.

    Attributes:
        name: What tables call it.
        against: The arm it is compared with.
        kind: ``trunk``, ``refiner``, ``joint``, ``longer`` or ``ensemble``.
        overrides: What it changes in the bundle.
        refinement: Fields of the refinement section.
        make_critic: Makes the critic; medseg's own unless given.
    """

    name: str
    against: str
    kind: str
    overrides: Sequence[str] = ()
    refinement: Mapping[str, Any] = field(default_factory=dict)
    make_critic: MakeCritic | None = None

    @property
    def has_critic(self) -> bool:
        """Whether it learns against a critic."""
        alone = self.refinement.get("adversarial_weight") == 0
        return self.kind == "joint" or (self.kind == "refiner" and not alone)


_ALONE = {"adversarial_weight": 0}
_ALL_DAMAGED = {"bank": {"corrupted": 1.0}}

ARMS = (
    Arm(PLAIN, "", "trunk"),
    Arm("U-Net, no corruptions", PLAIN, "trunk", CHANGES["no corruptions"]),
    Arm(HEAD, PLAIN, "refiner", refinement=_ALONE),
    Arm(CRITIC, HEAD, "refiner"),
    Arm(LONGER, PLAIN, "longer"),
    Arm(JOINT, LONGER, "joint"),
    Arm(MEAN_OF_TWO, PLAIN, "ensemble"),
    Arm(
        "refiner + critic of two scales", HEAD, "refiner", make_critic=TwoScales
    ),
    Arm(
        "refiner + critic of distances", HEAD, "refiner", make_critic=Distances
    ),
    Arm(DAMAGED, PLAIN, "refiner", refinement=_ALL_DAMAGED | _ALONE),
    Arm(f"{DAMAGED} + critic", DAMAGED, "refiner", refinement=_ALL_DAMAGED),
)


class Ablation:
    """The trainings and judgements of one data set.

    Args:
        given: What was asked for on the command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.out = given, Path(given.out)
        self.spec = self._changed()
        learning, held_back, test = split_cases(given.data, self.spec)
        learning = _of_patients(learning, given.learn_from)
        self.parts = (learning, held_back, test)
        self.arms = [
            arm for arm in ARMS if not given.arms or arm.name in given.arms
        ]
        listed = list_without_test(self.parts, self.spec, self.out)
        self.dataset: Dataset = open_dataset(
            listed, self.spec, 0, self.out / "preprocessed"
        )

    def _changed(self, overrides: Sequence[str] = ()) -> BundleSpec:
        steps = f"training.steps={self.given.steps}"
        return spec_of(
            self.given.bundle, [steps, *self.given.overrides, *overrides]
        )

    def grown(self, arm: Arm, seed: int) -> Grown:
        """Return an arm of a seed, trained now if it was not before."""
        file = self.out / f"seed{seed}" / f"{arm.name.replace(' ', '_')}.pt"
        return kept(file, lambda: self._grow(arm, seed))

    def _grow(self, arm: Arm, seed: int) -> Grown:
        cases, spec = (
            self.dataset.training,
            _of_seed(self._changed(arm.overrides), seed),
        )
        if arm.kind == "trunk":
            return grow_unet(spec, cases)
        trunk = self.grown(ARMS[0], seed)
        if arm.kind == "refiner":
            return grow_refiner(
                self._refining(spec, arm), cases, trunk, arm.make_critic
            )
        steps = self.given.arm_steps
        if arm.kind == "longer":
            cost = self.grown(
                next(one for one in ARMS if one.name == CRITIC), seed
            ).seconds
            steps = max(round(spec.training.steps * cost / trunk.seconds), 50)
        further = spec.training.model_copy(
            update={
                "steps": steps,
                "learning_rate": FURTHER_RATE * spec.training.learning_rate,
                "ema": max(1 - 10 / steps, 0.5),
                "warmup_steps": 0,
                # Not the trunk's batches once more.
                "seed": spec.training.seed + 1000,
            }
        )
        changes: dict[str, Any] = {"training": further}
        if arm.kind == "joint":
            changes["refinement"] = RefinementSpec(kind="joint")
        return grow_unet(spec.model_copy(update=changes), cases, trunk)

    def _refining(self, spec: BundleSpec, arm: Arm) -> BundleSpec:
        said = {"steps": self.given.arm_steps, **arm.refinement}
        return spec.model_copy(
            update={"refinement": RefinementSpec.model_validate(said)}
        )

    def train(self, seeds: Sequence[int]) -> None:
        """Train every arm of some seeds."""
        for seed in seeds:
            for arm in self.arms:
                if arm.kind != "ensemble":
                    made = self.grown(arm, seed)
                    print(
                        f"seed {seed}: {arm.name}, {made.seconds:.0f} CPU s",
                        flush=True,
                    )

    def answers(self, seed: int, seeds: Sequence[int]) -> dict[str, Answers]:
        """Return what makes the scores of each arm of a seed."""
        found = {}
        for arm in self.arms:
            if arm.kind == "refiner":
                spec = self._refining(self.spec, arm)
                network = build_refined(spec, both=True)
                trunk = self.grown(ARMS[0], seed)
                load_refined(
                    network, trunk.weights, self.grown(arm, seed).weights
                )
                found[arm.name] = Answers(self.spec, [network], chosen=1)
            elif arm.kind == "ensemble":
                other = seeds[(seeds.index(seed) + 1) % len(seeds)]
                both = [self._unet(ARMS[0], one) for one in (seed, other)]
                found[arm.name] = Answers(self.spec, both)
            else:
                found[arm.name] = Answers(self.spec, [self._unet(arm, seed)])
        return found

    def _unet(self, arm: Arm, seed: int) -> torch.nn.Module:
        network = build_network(self.spec, supervised=False)
        network.load_state_dict(self.grown(arm, seed).weights)
        return network

    def judged(self, seed: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """Return what every arm of a seed came to on test images."""
        file = self.out / f"seed{seed}" / "judged.json"
        if not file.is_file():
            answers = self.answers(seed, seeds)
            known = self._calibrated(answers)
            rows = []
            for number, case in enumerate(self.parts[2]):
                rows.extend(self._judge_case(answers, known, case, number))
                print(f"seed {seed}: case {number}", flush=True)
            write_atomically(
                file, json.dumps([row | {"seed": seed} for row in rows]) + "\n"
            )
        found: list[dict[str, Any]] = json.loads(file.read_text())
        return found

    def _calibrated(
        self, answers: Mapping[str, Answers]
    ) -> dict[str, QualityFinding]:
        """Calibrate each arm on held-back cases, clean and with one kind of damage each."""
        samples: dict[str, list[CalibrationSample]] = {
            name: [] for name in answers
        }
        for number, case in enumerate(self.parts[1]):
            volume, reference = open_case(case, self.spec)
            for place, (condition, _, image) in enumerate(
                conditions(volume, number)
            ):
                if condition == CLEAN or (
                    condition == SEEN and place == 1 + number % 5
                ):
                    image_rows = self._made(answers, image, reference)
                    for name, made in image_rows.items():
                        samples[name].append(
                            made.sample(str(number), condition == CLEAN)
                        )
        found = {}
        for name, its in samples.items():
            finding = calibrate(its, self.spec.label_set.names)
            if finding is None:
                raise SystemExit("too few held-back cases to calibrate quality")
            found[name] = finding
        return found

    def _judge_case(
        self,
        answers: Mapping[str, Answers],
        known: Mapping[str, QualityFinding],
        case: Case,
        number: int,
    ) -> Iterator[dict[str, Any]]:
        volume, reference = open_case(case, self.spec)
        for condition, kind, image in conditions(volume, 1000 + number):
            if condition != CLEAN and kind not in kinds_of(number):
                continue
            for name, made in self._made(answers, image, reference).items():
                quality = estimate_quality(
                    made.scores_at[known[name].temperature], known[name]
                )
                yield {
                    "arm": name,
                    "condition": condition,
                    "kind": kind,
                    "case": number,
                    **made.numbers,
                    "expected": quality.expected or 0.0,
                    "lower": quality.lower or 0.0,
                    "temperature": known[name].temperature,
                }

    @torch.inference_mode()
    def _made(
        self, answers: Mapping[str, Answers], image: Volume, reference: Array
    ) -> dict[str, Made]:
        grid = compute_network_grid(image, self.spec.preprocessing)
        truth = resample_nearest(
            grid.crop(reference[None])[0], grid.scan_to_network
        )
        sees = NetworkInput(self.spec)(image, grid)
        return {name: answer(sees, truth) for name, answer in answers.items()}


@dataclass(frozen=True, slots=True)
class Made:
    """What an arm made of one image.

    Attributes:
        numbers: Dice, HD95 and pieces, means over structures.
        dice: Label name → Dice.
        scores_at: Temperature → label name → raw expected Dice.
    """

    numbers: Mapping[str, float]
    dice: Mapping[str, float]
    scores_at: Mapping[float, Mapping[str, float]]

    def sample(self, case: str, is_clean: bool) -> CalibrationSample:
        """Return it as calibration wants it."""
        return CalibrationSample(
            case, self.scores_at[1.0], self.dice, is_clean, self.scores_at
        )


class Answers:
    """Scores an image by networks whose probabilities are averaged.

    Args:
        spec: The bundle.
        networks: Each answers the classes, or several estimates of them one after the other.
        chosen: The estimate that labels come from.
    """

    def __init__(
        self,
        spec: BundleSpec,
        networks: Sequence[torch.nn.Module],
        chosen: int = 0,
    ) -> None:
        self._spec, self._infer, self._chosen = (
            spec,
            build_window_inferer(spec),
            chosen,
        )
        self._networks = [network.eval() for network in networks]

    def __call__(self, image: torch.Tensor, truth: Array) -> Made:
        """Segment and score.

        Args:
            image: ``(channels, x, y, z)`` on the network's grid.
            truth: Label indices ``(x, y, z)``.
        """
        label_set = self._spec.label_set
        logits = torch.stack(
            [self._infer(image[None], one)[0] for one in self._networks]
        )
        # Network, estimate, class, ….
        estimates = logits.unflatten(1, (-1, label_set.channels))
        labels = (
            estimates[:, self._chosen]
            .softmax(dim=1)
            .mean(dim=0)
            .max(dim=0)
            .indices
        )
        scores = {
            t: expected_dice(
                (estimates / t).softmax(dim=2).mean(dim=0), labels, label_set
            )
            for t in (1.0, *TEMPERATURES)
        }
        predicted = labels.numpy().astype(np.uint8)
        spacing = tuple(
            mm or 1.0 for mm in self._spec.preprocessing.spacing_mm or (1.0,)
        )
        scored = score_case(
            predicted, truth, label_set, (*spacing, 1.0, 1.0)[:3]
        )
        means = summarise([scored])
        pieces = [components(predicted == one.index)[1] for one in label_set]
        numbers = {
            name: float(means[name]["mean"]) for name in ("dice", "hd95")
        }
        return Made(
            numbers | {"pieces": float(np.mean(pieces))},
            dict(scored["dice"]),
            scores,
        )


def expected_dice(
    estimates: torch.Tensor, labels: torch.Tensor, label_set: LabelSet
) -> dict[str, float]:
    """Return label name → ``2 Σ_mask p / (|mask| + Σ p)``, the mean over estimates.

    Args:
        estimates: Probabilities ``(estimates, classes, x, y, z)``.
        labels: Label indices ``(x, y, z)``.
        label_set: What they mean.
    """
    found = {}
    for label in label_set:
        p, mask = estimates[:, label.index].double(), labels == label.index
        if mask.any() or p[-1].max() > SEEN_IN_MASK:
            inside, everywhere = (
                (p * mask).sum(dim=(1, 2, 3)),
                p.sum(dim=(1, 2, 3)),
            )
            found[label.name] = float(
                (2 * inside / (everywhere + mask.sum())).mean()
            )
    return found


def kinds_of(number: int) -> list[str]:
    """Return the kinds of unseen damage that a test case is shown with: two, in turns."""
    kinds = list(UNSEEN)
    return [kinds[(2 * number + n) % len(kinds)] for n in range(KINDS_EACH)]


def _of_seed(spec: BundleSpec, seed: int) -> BundleSpec:
    training = spec.training.model_copy(update={"seed": seed})
    return spec.model_copy(update={"training": training})


def _of_patients(cases: Sequence[Case], count: int | None) -> list[Case]:
    patients = list(dict.fromkeys(case.group for case in cases))[:count]
    return [case for case in cases if case.group in set(patients)]


def table_of(
    rows: Sequence[Mapping[str, Any]], arm: str, condition: str, column: str
) -> Table:
    """Return an arm's numbers, ``(seeds, images)``."""
    some = [
        row
        for row in rows
        if row["arm"] == arm and row["condition"] == condition
    ]
    seeds = sorted({row["seed"] for row in some})
    return np.array(
        [[row[column] for row in some if row["seed"] == seed] for seed in seeds]
    )


def compared(
    rows: Sequence[Mapping[str, Any]],
    arm: Arm,
    condition: str,
    patients: Sequence[str],
) -> tuple[Change, Change]:
    """Return by how much an arm differs from its control: Dice, and HD95 relative to it."""

    def gain(column: str) -> Change:
        first, second = (
            table_of(rows, name, condition, column)
            for name in (arm.name, arm.against)
        )
        return change(first, second, patients, relative=column == "hd95")

    return gain("dice"), gain("hd95")


def mask_lines(
    rows: Sequence[Mapping[str, Any]],
    arms: Sequence[Arm],
    condition: str,
    patients: Sequence[str],
    gaps: Mapping[str, Sequence[float]],
    seconds: Mapping[str, float],
) -> Iterator[str]:
    """Yield the table of masks in one condition: each arm against its control."""
    seeds = len({row["seed"] for row in rows})
    yield f"\n### Masks, {condition}: {seeds} seed{'s' * (seeds != 1)}"
    columns = (
        "Dice",
        "HD95",
        "pieces",
        "against",
        "Δ Dice",
        "Δ HD95, relative",
        "so it",
    )
    yield from heading("arm", *columns, "critic's gap", "CPU min")
    for arm in arms:
        dice, hd95, pieces = (
            table_of(rows, arm.name, condition, column)
            for column in ("dice", "hd95", "pieces")
        )
        cells = [
            f"{dice.mean():.4f} ± {_spread(dice.mean(axis=1)):.4f}",
            f"{hd95.mean():.2f}",
            f"{pieces.mean():.2f}",
        ]
        if arm.against in {one.name for one in arms}:
            gains = compared(rows, arm, condition, patients)
            told = verdict(
                *gains, seeds, gaps[arm.name] if arm.has_critic else None
            )
            cells += [arm.against, str(gains[0]), str(gains[1]), told]
        else:
            cells += ["", "", "", ""]
        cells.append(f"{np.mean(gaps[arm.name]):.2f}" if arm.has_critic else "")
        cells.append(
            f"{seconds[arm.name] / 60:.1f}" if arm.name in seconds else ""
        )
        yield f"| {arm.name} | {' | '.join(cells)} |"


def quality_lines(
    rows: Sequence[Mapping[str, Any]], arms: Sequence[Arm]
) -> Iterator[str]:
    """Yield the table of quality: the mean over seeds, and their spread."""
    yield "\n### Quality: calibrated expected Dice against the true one, mean ± sd over seeds"
    yield from heading(
        "arm", "images", *QUALITY, "90 % bound holds", "temperatures"
    )
    for arm in arms:
        for condition in (CLEAN, SHIFTED):
            dice, expected, lower = (
                table_of(rows, arm.name, condition, column)
                for column in ("dice", "expected", "lower")
            )
            pairs = list(zip(expected, dice, strict=True))
            cells = [
                _mean_and_spread([of(*pair) for pair in pairs])
                for of in QUALITY.values()
            ]
            held = [
                covered(low, true)
                for low, true in zip(lower, dice, strict=True)
            ]
            at = sorted(
                {row["temperature"] for row in rows if row["arm"] == arm.name}
            )
            told = ", ".join(f"{one:g}" for one in at)
            cells += [_mean_and_spread(held), told]
            yield f"| {arm.name} | {condition} | {' | '.join(cells)} |"


def _spread(values: Any) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {_spread(values):.3f}"


def write_tables(ablation: Ablation, seeds: Sequence[int]) -> str:
    """Write ``ablation.md`` and ``ablation.json``; return the former."""
    rows = [row for seed in seeds for row in ablation.judged(seed, seeds)]
    trained = {
        arm.name: [ablation.grown(arm, seed) for seed in seeds]
        for arm in ablation.arms
        if arm.kind != "ensemble"
    }
    critics = {arm.name for arm in ablation.arms if arm.has_critic}
    gaps = {
        name: [one.gap for one in its]
        for name, its in trained.items()
        if name in critics
    }
    seconds = {
        name: float(np.mean([one.seconds for one in its]))
        for name, its in trained.items()
    }
    patients = [case.group for case in ablation.parts[2]]
    lines: list[str] = []
    for condition in (CLEAN, SHIFTED):
        whose = [
            patients[row["case"]]
            for row in rows
            if (row["arm"], row["condition"], row["seed"])
            == (PLAIN, condition, seeds[0])
        ]
        lines += mask_lines(
            rows, ablation.arms, condition, whose, gaps, seconds
        )
    lines += quality_lines(rows, ablation.arms)
    sizes = dict(
        zip(
            ("learning", "held_back", "test"),
            map(len, ablation.parts),
            strict=True,
        )
    )
    given = ablation.given
    about = {
        "bundle": given.bundle.name,
        "steps": given.steps,
        "arm_steps": given.arm_steps,
        "overrides": given.overrides,
        "learn_from": given.learn_from,
        "seeds": list(seeds),
        "cases": sizes,
        "gaps": gaps,
        "collect_provenance": collect_provenance(torch.device("cpu")),
    }
    text = "\n".join(lines) + "\n"
    write_atomically(ablation.out / "ablation.md", text)
    write_atomically(
        ablation.out / "ablation.json",
        json.dumps({"about": about, "rows": rows}) + "\n",
    )
    return text + json.dumps(about, indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600, help="of a trunk")
    parser.add_argument(
        "--arm-steps", type=int, default=200, help="of a refiner or a critic"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument(
        "--learn-from", type=int, help="so many patients; all unless given"
    )
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument(
        "--stage",
        choices=("train", "estimate_quality"),
        help="no more than this",
    )
    parser.add_argument(
        "--of", type=int, nargs="+", help="with a stage: of these seeds alone"
    )
    given = parser.parse_args()

    torch.set_num_threads(given.threads)
    ablation, mine = Ablation(given), given.of or given.seeds
    if given.stage != "estimate_quality":
        ablation.train(mine)
    if given.stage == "estimate_quality":
        for seed in mine:
            ablation.judged(seed, given.seeds)
    if given.stage is None:
        print(write_tables(ablation, given.seeds))


if __name__ == "__main__":
    main()
