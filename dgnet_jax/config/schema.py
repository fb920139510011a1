"""Every setting: its type, its default (the release's value) and what it does. One frozen dataclass per section; those
of the data are in data_schema.py, those of the networks and of the teacher in network_schema.py.

Config files and command-line overrides work on an `ml_collections.ConfigDict` with the same fields
(`config.defaults.default_config`); everything else takes the section that it reads. Nothing heavy is imported here, so
that a config can be validated before JAX is imported.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, TypeVar

from dgnet_jax.config.data_schema import AugmentConfig, DataConfig
from dgnet_jax.config.network_schema import (
  CorrespondenceConfig,
  DecoderConfig,
  DiscriminatorConfig,
  GeneratorConfig,
  ReidConfig,
  StructureEncoderConfig,
  TeacherConfig,
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """The three optimizers and their learning rates."""

  generator_learning_rate: float = 1e-4  # Adam
  discriminator_learning_rate: float = 1e-4  # Adam
  # Generator and discriminator are trained for this many steps; in those that follow only the re-id network is, also
  # from images of the generator as it is then. 0: in all steps, as in the release.
  generator_steps: int = 0
  adam_betas: tuple[float, float] = (0.0, 0.999)  # of both Adam optimizers (release: beta1, beta2)
  # Design correspondence only: above 0, Muon trains the hidden kernels of the generator at this multiple of
  # generator_learning_rate, and Adam with Nesterov momentum the rest; at 0, Adam trains all of it.
  muon_multiplier: float = 0.0
  reid_learning_rate: float = 0.002  # SGD with Nesterov momentum; backbone (release: lr2)
  head_multiplier: float = 10.0  # learning rate of the heads relative to the backbone's
  reid_momentum: float = 0.9  # of the re-id network and the teacher
  weight_decay: float = 5e-4  # added to the gradient of every parameter (coupled)
  # multistep (drops at decay_steps and at 1.5 and 1.75 times it), step (drops at every multiple of decay_steps) or
  # constant (release: lr_policy, whose `constant` crashes there).
  schedule: str = 'multistep'
  # Of both Adam rates: as_reid (the schedule above), or cosine (from the rate to gan_decay times it, over
  # generator_steps).
  gan_schedule: str = 'as_reid'
  # Of the re-id network's rate alone: as_schedule (`schedule`), or cosine (to 0, from the end of its warm-up to
  # num_steps).
  reid_schedule: str = 'as_schedule'
  # The re-id network's rate grows linearly from a tenth over so many steps, in either schedule. 0: it does not, as in
  # the release.
  reid_warmup_steps: int = 0
  decay_steps: int = 60_000  # the first drop (release: step_size)
  gan_decay: float = 0.1  # factor of both Adam rates at each drop, or at the end of the cosine (release: gamma)
  reid_decay: float = 0.1  # factor of the SGD rates at each drop (release: gamma2)
  # How many updates of a run may be skipped because a loss, a gradient or the updated state is not finite. Then all
  # networks and optimizers stay as they are, and only the step advances. 0: the run stops at the first one.
  skip_non_finite: int = 0


@dataclasses.dataclass(frozen=True)
class WeightsConfig:
  """Constant loss weights, named as the terms in training/objectives.py and training/correspondence_terms.py."""

  adversarial: float = 1.0  # both sides of the adversarial loss (release: gan_w)
  # L1 of the discriminator's features of the image from the positive, relative to those of the image. The release has
  # no such term; 0 does not compute it.
  feature_matching: float = 0.0
  self_reconstruction: float = 5.0  # L1, from the codes of the same image (release: recon_x_w)
  positive_reconstruction: float = 5.0  # L1, with the appearance code of the positive (release: recon_xp_w)
  cross_identity: float = 0.5  # identification of cross images by their appearance donor (release: recon_id_w)
  identity: float = 1.0  # identification of real images (release: id_w)
  positive_identity: float = 1.0  # identification of their positives (release: pid_w)
  # Metric losses on the embeddings of real images and their positives, one head at a time; a term is the mean of image
  # and positive, so 2.0 is as much as both identity terms have. The release has no such terms; 0 does not compute them.
  # On the fine-grained head they are weighted like its identification. Margins and scale: section reid.
  triplet: float = 0.0  # batch-hard triplet loss
  circle: float = 0.0  # circle loss
  # Design correspondence only. There, nothing is rebuilt from the codes of the same image (self_reconstruction): cells
  # of a moved copy are matched with the image instead.
  dissimilarity: float = 1.0  # 1 - SSIM, of the image from the positive and that of the cycle (not ramped)
  matching: float = 2.0  # cross-entropy of attention at the known places of the moved copy
  fetched: float = 2.0  # L1 of the fetched pixels alone, inside the mask
  erasure: float = 1.0  # the teacher must not recognize the person outside the mask
  mask_area: float = 0.1  # mean of the mask


@dataclasses.dataclass(frozen=True)
class RampConfig:
  """A weight that grows from `initial` by `per_step` in every step after `start_step`, up to `maximum`."""

  initial: float = 0.0  # weight up to `start_step`; a term with weight 0 is not computed
  start_step: int = 30_000  # last step with the initial weight (release: warm_iter, warm_teacher_iter)
  per_step: float = 0.0005  # growth per step (release: warm_scale)
  maximum: float = 1.0  # the weight stops growing here (release: max_w, max_cyc_w, max_teacher_w)


@dataclasses.dataclass(frozen=True)
class RampsConfig:
  """Loss weights that start after the warm-up."""

  structure_code: RampConfig = RampConfig()  # L1 of the structure codes of cross images
  appearance_code: RampConfig = RampConfig()  # L1 of their appearance codes
  cycle: RampConfig = RampConfig(maximum=2.0)  # L1 of images decoded from the codes of cross images
  teaching: RampConfig = RampConfig(maximum=2.0)  # re-id losses on cross images, and the fine-grained head

  def by_name(self) -> dict[str, RampConfig]:
    """Returns every ramp by the name of its weight."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class TeachingConfig:
  """What the re-id network learns from generated images."""

  primary: float = 1.0  # weight of KL(teacher, student) within the teaching weight (release: T_w)
  # Weight of the fine-grained head's cross-entropy within the teaching weight: the structure donor on generated images,
  # the image's identity on real ones (release: B_w). Style AB only.
  fine_grained: float = 0.2
  # Multiplies that weight on real images, together with weights.identity; 1 in the release. Above 1, real images, in
  # which clothes identify a person, count for more than cross images, in which clothes mislead.
  fine_on_real: float = 1.0
  # Target of the primary head on cross images: soft (the teacher's probabilities), argmax (its most likely identity),
  # appearance (the appearance donor), uniform, or donors (soft, restricted to the two donors).
  label_style: str = 'soft'
  # generated, or ground_truth: the rendered ground truth of the cross images, which a perfect generator would produce
  # (built-in pedestrians with joint=False only).
  images: str = 'generated'
  teacher_norm: str = 'batch'  # batch (batch statistics; release: train_bn) or running
  teacher_dropout: bool = False  # the release leaves it on by accident after it first saves images


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """How often a run reports and saves."""

  progress_every_steps: int = 10  # progress line and metrics
  images_every_steps: int = 5_000  # image grid
  checkpoint_every_steps: int = 10_000  # a checkpoint is also saved at the end and on interruption
  keep_checkpoints: int = 3  # the newest ones, besides the best (evaluation.every_steps); older checkpoints are deleted
  hparams: bool = False  # write all settings to TensorBoard, whose tab HPARAMS compares runs
  wandb_project: str = ''  # also report to Weights & Biases, in this project (extra wandb)


@dataclasses.dataclass(frozen=True)
class RerankingConfig:
  """k-reciprocal re-ranking (Zhong et al., arXiv 1701.08398)."""

  k1: int = 20  # neighbours that may be reciprocal
  k2: int = 6  # neighbours whose weights are averaged
  weight: float = 0.3  # weight of the original distance, in [0, 1]


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
  """What `dgnet evaluate` measures, and what is measured during training."""

  # While DG-Net or its teacher trains, rank the validation split (data.val_identities; without it the test split) after
  # every so many steps and after the last. The state is saved before; of DG-Net the checkpoint with the best mAP is
  # kept, of a teacher only the newest are, because a run uses its last. 0: only after training.
  every_steps: int = 0
  split: str = 'test'  # what `dgnet evaluate` ranks: test, or validation (data.val_identities)
  batch_size: int = 64  # images embedded at a time
  # release (trapezoidal precision, averaged over all queries) or standard (rectangular precision, averaged over the
  # queries with a match, as fast-reid and torchreid do).
  protocol: str = 'release'
  alpha: float = 0.5  # weight of the query's fine-grained half in `both`
  alpha_steps: int = 0  # weights between 0 and 1 to compare in a table and a plot; 0 skips the comparison
  verification: bool = False  # TPR at FPR 1e-4, 1e-3 and 1e-2 over all pairs, and ROC curves
  # Rank tracks in place of images: the embedding of a track is the mean over its images, in which each half is
  # normalized again. The gallery has the other query tracks in it, too, as in MARS. Layout mars only.
  tracklets: bool = False
  rerank: bool = False  # also report k-reciprocal re-ranking
  reranking: RerankingConfig = RerankingConfig()
  num_swaps: int = 8  # people on each side of the swap sheet
  num_ranked_queries: int = 8  # queries on the ranked-list sheet
  # Gallery images per query in ranked_table/, the ranked gallery of every query as Parquet files; 0 writes no table.
  ranked_table: int = 0
  num_ground_truth_pairs: int = 512  # built-in pedestrians: images of each kind compared with the ground truth


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
  """What `dgnet generate` makes."""

  # sheets (every query identity in the structure of evaluation.num_swaps others, and sheets to look at), images (every
  # image of a split in random structures of other people) or identities (the same for every identity of a split,
  # starting from random images of it). Plan sheets reads none of the fields below.
  plan: str = 'sheets'
  appearance_split: str = 'train'  # train, query, gallery or multi_query: appearance donors
  structure_split: str = 'train'  # as appearance_split: structure donors
  per_appearance: int = 1  # images to generate for each appearance image or identity
  num_images: int = 0  # or this many in total, cycling through the donors as often as needed; 0: per_appearance each
  format: str = 'jpeg'  # jpeg or png
  jpeg_quality: int = 95  # 1 to 100
  seed: int = 0  # image i is a function of this seed and i
  manifest_table: bool = False  # write the manifest as Parquet files, too, to manifest_table/


@dataclasses.dataclass(frozen=True)
class Config:
  """All settings of a run."""

  seed: int = 0  # all randomness is a function of (seed, step)
  batch_size: int = 8  # images per stream and step, over all devices; a step sees 4 times as many images
  # Parts in which a step computes its batch, one after the other: less memory, and the images are generated twice.
  # Losses, statistics and gradients are those of the batch at once, up to rounding. Parts have whole groups of
  # reid.batch_norm_group images, so parts x group must divide batch_size.
  micro_batches: int = 1
  # Devices that split the identity classifiers of the re-id network and of the teacher, and their logits, among them;
  # 1: every device has all of them. Must divide the number of devices. Everything else is as with 1: a batch splits
  # over all devices, and checkpoints fit any value.
  model_devices: int = 1
  num_steps: int = 100_000  # length of the run
  # False trains the re-id network alone on real images, with everything else unchanged: the baseline of joint learning
  # (`dgnet ablation`). Style AB only; see also teaching.images.
  joint: bool = True
  # float32 or bfloat16: what convolutions compute in, except those of the correspondence generator's shape encoder.
  # Parameters stay float32.
  compute_dtype: str = 'float32'
  # Probability that a step trains the structure encoder on generated images (release: use_encoder_again). Design adain
  # only.
  structure_encoder_update_prob: float = 0.5
  data: DataConfig = DataConfig()
  augment: AugmentConfig = AugmentConfig()
  generator: GeneratorConfig = GeneratorConfig()
  structure_encoder: StructureEncoderConfig = StructureEncoderConfig()
  decoder: DecoderConfig = DecoderConfig()
  correspondence: CorrespondenceConfig = CorrespondenceConfig()
  discriminator: DiscriminatorConfig = DiscriminatorConfig()
  reid: ReidConfig = ReidConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  weights: WeightsConfig = WeightsConfig()
  ramps: RampsConfig = RampsConfig()
  teaching: TeachingConfig = TeachingConfig()
  teacher: TeacherConfig = TeacherConfig()
  log: LogConfig = LogConfig()
  evaluation: EvaluationConfig = EvaluationConfig()
  generation: GenerationConfig = GenerationConfig()

  def to_dict(self) -> dict[str, Any]:
    """Returns nested dictionaries with the same fields."""
    return dataclasses.asdict(self)

  @classmethod
  def from_mapping(cls, values: Mapping[str, Any]) -> 'Config':
    """Freezes a validated ConfigDict or nested dictionary.

    Args:
      values: exactly the fields of this class, at every depth.

    Raises:
      TypeError: a field is unknown. Validate first for a message that helps the user.
    """
    return _frozen(cls, values)


_Section = TypeVar('_Section')


def _frozen(section: type[_Section], values: Mapping[str, Any]) -> _Section:
  """Returns a section from a mapping; lists become tuples and whole numbers floats where the field requires them."""
  defaults = section()
  return section(**{name: _converted(getattr(defaults, name), value) for name, value in values.items()})


def _converted(default: Any, value: Any) -> Any:
  if dataclasses.is_dataclass(default):
    return _frozen(type(default), value)
  if isinstance(default, tuple):
    return tuple(type(default[0])(item) for item in value)
  return type(default)(value)
